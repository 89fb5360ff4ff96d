//! The bodies of the fuzz targets on programs that are made here, whole and damaged at random.

use super::{executable, sections, with_file};
use crate::symbols::Build;
use proptest::prelude::*;
use riptrace_protocol::fleet::{BuildFacts, Language};
use riptrace_protocol::location::{FunctionPoint, Location};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

const C: &str = "
struct point { int x; struct point *next; char text[8]; double w; unsigned a : 3, b : 5; };
union either { long whole; float part; };
enum color { RED, GREEN = 5 };
static inline int square(int v) { return v * v + 1; }
__attribute__((noinline)) int work(struct point *p, int n, const short *list, union either e, enum color c) {
    int sum = 0;
    for (int i = 0; i < n; i++) { sum += square(i) + p->x + (int)e.whole; }
    return sum + list[0] + (int)c;
}
void _start(void) {
    struct point p = { 3 };
    short list[2] = { 1, 2 };
    union either e = { 7 };
    work(&p, 4, list, e, GREEN);
    for (;;);
}
";

const CXX: &str = "
template <typename T> struct list { T *items; unsigned long length; T at(int n) const { return items[n]; } };
struct base { virtual int area() { return 0; } int id; };
struct square : base { int side; int area() override { return side * side; } };
namespace shop { __attribute__((noinline)) int work(const list<int> &all, base *p, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) { sum += all.at(i) + p->id; }
    return sum;
} }
extern \"C\" void _start() {
    int items[2] = { 1, 2 };
    list<int> all = { items, 2 };
    square p;
    shop::work(all, &p, 2);
    for (;;);
}
";

/// Becomes Go by [`go_from_c`].
const GO: &str = "
typedef struct { const char *str; long len; } GO_string;
typedef struct { long *array; long len, cap; } GO_slice;
typedef struct { void *type, *data; } runtime_eface;
typedef struct { void *tab, *data; } runtime_iface;
typedef struct { unsigned long used; void *dirPtr; unsigned char writing; } GO_map;
struct runtime_g { long stack; long goid; void *m; };
struct runtime_g *runtime_g0;
struct main_Item { GO_string sku; GO_slice all; runtime_eface any; runtime_iface err; GO_map *stock; struct main_Item *next; };
__attribute__((noinline)) int main_work(struct main_Item *p, int n, runtime_eface any, GO_slice list, GO_string text) {
    int sum = 0;
    for (int i = 0; i < n; i++) { sum += (int)list.array[i] + (int)text.len + (any.data != 0); }
    return sum + (int)p->sku.len;
}
void _start(void) {
    struct main_Item p = { 0 };
    runtime_eface any = { 0 };
    main_work(&p, 1, any, p.all, p.sku);
    for (;;);
}
";

/// Assembler of a C program, made to say that it is Go: the language, names, and the attributes that Go's compiler adds
/// (cmd/internal/dwarf: `DW_AT_go_kind` 0x2900, `DW_AT_go_runtime_type` 0x2904) in the place of declared lines and columns.
fn go_from_c(assembler: &str) -> String {
    let line = |line: &str| {
        let attribute = |from: &str, to: &str| line.replace(from, to);
        match line {
            _ if line.contains("DW_AT_decl_line") && line.contains(".uleb128") => attribute("0x3b", "0x2904"),
            _ if line.contains("DW_AT_decl_column") && line.contains(".uleb128") => attribute("0x39", "0x2900"),
            _ if line.contains("DW_AT_language") && line.contains(".byte") => "\t.byte\t0x16".to_owned(),
            _ if line.contains(".string") || line.contains(".ascii") => line
                .replace("GO_string", "string")
                .replace("GO_slice", "[]int")
                .replace("GO_map", "map[string]int")
                .replace("runtime_", "runtime.")
                .replace("main_", "main."),
            _ => line.to_owned(),
        }
    };
    assembler.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// What Go's linker adds to a program: its build information, the table of its functions, the module's data that tells
/// where that is, and descriptions of types. In a row of sections.
fn go_sections() -> Vec<u8> {
    let table = crate::symbols::small_function_table();
    let text = "path\tmain\nmod\texample.com/shop\tv1.2.3\th1:x\nbuild\tvcs.revision=abc\nbuild\tvcs.modified=true\n";
    let text = format!("{0}{text}{0}", "0123456789abcdef");
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    for part in ["go1.27.0", text.as_str()] {
        // Lengths as varints: the second has two bytes.
        let length = part.len();
        if length > 127 {
            info.push(length as u8 | 0x80);
        }
        info.push((length >> if length > 127 { 7 } else { 0 }) as u8);
        info.extend_from_slice(part.as_bytes());
    }
    let (table_at, types_at, text_at) = (0x50_0000u32, 0x51_0000u32, 0x1000u64);
    let mut module = [0u64; 48];
    module[0] = table_at.into();
    for (word, value) in
        [(17, 3), (20, text_at), (21, text_at + 64), (22, text_at), (23, text_at + 64), (43, 0x53_0000)]
    {
        module[word] = value;
    }
    let module: Vec<u8> = module.iter().flat_map(|word| word.to_le_bytes()).collect();
    let types: Vec<u8> =
        (0..16u64).flat_map(|n| [8, 0, 0x0101_0000 | (n << 24), 0, 0, n << 4]).flat_map(u64::to_le_bytes).collect();
    let note = b"\x04\0\0\0\x04\0\0\0\x04\0\0\0Go\0\0abcd".to_vec();
    let parts: [(u8, u32, Vec<u8>); 6] = [
        (20, table_at, table),
        (21, 0x52_0000, info),
        (22, types_at, types),
        (23, 0x53_0000, module),
        (25, 0x54_0000, note),
        (1, 0x1000, vec![0x90; 64]),
    ];
    let section = |(name, address, content): (u8, u32, Vec<u8>)| {
        let length = (content.len() as u16).to_le_bytes();
        [vec![name], address.to_le_bytes().to_vec(), length.to_vec(), content].concat()
    };
    parts.into_iter().flat_map(section).collect()
}

/// A program by its name: as a file, and in a row of sections.
type Program = (String, Vec<u8>, Vec<u8>);

/// Small programs.
static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let run = |compiler: &str, arguments: &[&str]| {
        let mut command = Command::new(compiler);
        command.current_dir(folder.path()).args(["-fno-exceptions", "-fno-rtti"].iter().filter(|_| compiler == "c++"));
        assert!(
            command.args(arguments).status().expect("a C compiler is on PATH").success(),
            "{compiler} {arguments:?}"
        );
    };
    std::fs::write(folder.path().join("work.c"), C).unwrap();
    std::fs::write(folder.path().join("work.cc"), CXX).unwrap();
    std::fs::write(folder.path().join("go.c"), GO).unwrap();
    let link = ["-nostdlib", "-static", "-no-pie", "-o", "work"];
    let read = |name: &str, more: &[u8]| {
        let file = std::fs::read(folder.path().join("work")).unwrap();
        let packed = [super::pack(&file).unwrap(), more.to_vec()].concat();
        (name.to_owned(), file, packed)
    };
    let mut programs = Vec::new();
    for (name, source, flags) in [
        ("c5", "work.c", ["-gdwarf-5", "-O2"]),
        ("c4", "work.c", ["-gdwarf-4", "-O1"]),
        ("c0", "work.c", ["-gdwarf-5", "-O0"]),
        ("cxx", "work.cc", ["-gdwarf-5", "-O1"]),
    ] {
        run(if source == "work.cc" { "c++" } else { "cc" }, &[&link[..], &flags, &[source]].concat());
        programs.push(read(name, &[]));
    }
    for (name, flags) in [("go5", ["-gdwarf-5", "-O1"]), ("go4", ["-gdwarf-4", "-O0"])] {
        run("cc", &[&flags[..], &["-dA", "-S", "go.c", "-o", "go.s"]].concat());
        let assembler = std::fs::read_to_string(folder.path().join("go.s")).unwrap();
        std::fs::write(folder.path().join("go.s"), go_from_c(&assembler)).unwrap();
        run("cc", &[&link[..], &["go.s"]].concat());
        programs.push(read(name, &go_sections()));
    }
    let packed = go_sections();
    programs.push(("go-stripped".to_owned(), super::sections::executable(&super::sections::unpack(&packed)), packed));
    programs
});

/// What a build says of itself when it is asked a little.
fn told(build: &Build) -> (BuildFacts, usize, usize) {
    let location = Location::Function { name: "*".to_owned(), at: FunctionPoint::Call };
    let sites = build.resolve(&location).map_or(0, |sites| sites.len());
    let described = build.view().ok().and_then(|view| {
        let types = build.go_types(&view)?;
        Some(types.candidates(&view, build, None).ok()?.len())
    });
    (build.facts().clone(), sites, described.unwrap_or(0))
}

/// With `RIPTRACE_FUZZ_SEEDS=FOLDER`, they are written there: what the fuzz targets begin with.
#[test]
fn the_seeds_reach_what_is_to_be_fuzzed() {
    for (name, file, packed) in PROGRAMS.iter() {
        let mut found = Vec::new();
        with_file(file, |build| found.push(told(build)));
        with_file(&super::sections::executable(&super::sections::unpack(packed)), |build| found.push(told(build)));
        let [(_, as_file, _), (facts, sites, described)] = found.as_slice() else {
            panic!("{name} is read: {found:?}")
        };
        assert!(*sites > 1, "{name}: {found:?}");
        assert_eq!(as_file, sites, "{name}: the same functions in a row of sections");
        let is_go = name.starts_with("go");
        assert_eq!(facts.language == Language::Go, is_go, "{name}");
        assert_eq!(facts.dwarf, name != "go-stripped", "{name}");
        if is_go {
            assert_eq!((facts.module.as_deref(), facts.vcs_modified), (Some("example.com/shop"), Some(true)), "{name}");
            assert_eq!(*described > 0, facts.dwarf, "{name}: types that the runtime describes");
        }
        executable(file);
        sections(packed);
        if let Some(folder) = std::env::var_os("RIPTRACE_FUZZ_SEEDS").map(PathBuf::from) {
            for (target, content) in [("elf", file), (if is_go { "go" } else { "dwarf" }, packed)] {
                std::fs::create_dir_all(folder.join(target)).unwrap();
                std::fs::write(folder.join(target).join(name), content).unwrap();
            }
        }
    }
}

fn damaged(bytes: &[u8], damages: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value, how) in damages {
        let at = at.index(bytes.len());
        match how {
            0 => bytes.insert(at, *value),
            1 => {
                bytes.remove(at);
            }
            _ => bytes[at] = *value,
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_program_gives_less_and_never_a_panic(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..12), 1..10),
    ) {
        let (_, file, packed) = which.get(PROGRAMS.as_slice());
        executable(&damaged(file, &damages));
        sections(&damaged(packed, &damages));
    }

    #[test]
    fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..300)) {
        executable(&input);
        sections(&input);
    }
}
