//! The mapper over real clones, made with `git` in a temporary folder.

use super::*;
use riptrace_protocol::fleet::Language;
use std::process::Command;
use tempfile::TempDir;

const FIRST: &str = "package cart\n\nfunc Add(n int) {\n\ttotal += n\n\tsave()\n}\n";
const SECOND: &str = "package cart\n\n// Add adds.\nfunc Add(n int) {\n\ttotal += n\n\tsave()\n}\n";

struct Clone {
    folder: TempDir,
}

impl Clone {
    /// A clone with a module in a sub folder and one commit, whose id is returned.
    fn new() -> (Clone, String) {
        let clone = Clone { folder: TempDir::new().unwrap() };
        clone.git(&["init", "--quiet"]);
        clone.write("shop/go.mod", "module example.com/shop\n");
        clone.write("shop/cart/cart.go", FIRST);
        let first = clone.commit();
        (clone, first)
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ana", "-c", "user.email=ana@example.com", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        std::fs::write(self.path(file), text).unwrap();
    }

    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn mapper(&self) -> LineMapper {
        LineMapper::new(self.folder.path().join("shop"), Vec::new())
    }
}

fn build(id: &str, revision: Option<&str>, modified: bool) -> BuildFacts {
    BuildFacts {
        id: BuildId(format!("go:{id}")),
        language: Language::Go,
        dwarf: true,
        go_version: None,
        module: Some("example.com/shop".into()),
        module_version: None,
        vcs_revision: revision.map(str::to_owned),
        vcs_modified: revision.map(|_| modified),
        settings: Default::default(),
    }
}

#[tokio::test]
async fn each_build_gets_the_line_of_its_own_commit() {
    let (clone, first) = Clone::new();
    clone.write("shop/cart/cart.go", SECOND);
    let second = clone.commit();
    let unsaved = SECOND.replace("func Add", "// More.\nfunc Add");
    let builds = [build("old", Some(&first), false), build("new", Some(&second), false)];
    let mapper = clone.mapper();
    let mut plan = mapper.plan(Path::new("cart/cart.go"), 6, Some(&unsaved), &builds).await.unwrap();
    assert!(plan.targets.iter().all(|target| target.sources.is_empty()), "nobody has asked for them");
    mapper.add_sources(Path::new("cart/cart.go"), Some(&unsaved), &builds, &mut plan).await;
    let target = |line, build: &BuildFacts, text: &str| Target {
        file: "cart/cart.go".into(),
        line,
        builds: vec![build.id.clone()],
        notes: vec![],
        // What is said of the variables is said by the text that the build was made of.
        sources: vec![SourceFacts::of_go(text, line)],
    };
    assert_eq!(plan.targets, [target(4, &builds[0], FIRST), target(5, &builds[1], SECOND)]);
    assert_eq!(plan.refused, []);

    let there = mapper.plan(&clone.path("shop/cart/cart.go"), 2, Some(&unsaved), &builds).await.unwrap();
    assert_eq!(there.targets.len(), 1, "the same line in both is one target");
    assert_eq!(there.targets[0].builds.len(), 2);

    // Builds of one text say one thing.
    let same = [build("one", Some(&second), false), build("other", Some(&second), false)];
    let mut plan = mapper.plan(Path::new("cart/cart.go"), 6, Some(&unsaved), &same).await.unwrap();
    mapper.add_sources(Path::new("cart/cart.go"), Some(&unsaved), &same, &mut plan).await;
    assert_eq!((plan.targets.len(), plan.targets[0].builds.len()), (1, 2));
    assert_eq!(plan.targets[0].sources, [SourceFacts::of_go(SECOND, 5)]);

    // A build whose text is not known is held against what is here.
    let unknown = [build("x", None, false)];
    let mut plan = mapper.plan(Path::new("cart/cart.go"), 6, Some(&unsaved), &unknown).await.unwrap();
    mapper.add_sources(Path::new("cart/cart.go"), Some(&unsaved), &unknown, &mut plan).await;
    assert_eq!(plan.targets[0].sources, [SourceFacts::of_go(&unsaved, 6)]);
}

#[tokio::test]
async fn a_line_that_a_build_does_not_have_is_refused_with_the_reason() {
    let (clone, first) = Clone::new();
    clone.write("shop/cart/cart.go", SECOND);
    let second = clone.commit();
    let builds = [build("old", Some(&first), false), build("new", Some(&second), false)];
    let plan = clone.mapper().plan(Path::new("cart/cart.go"), 3, None, &builds).await.unwrap();
    assert_eq!(plan.targets.len(), 1);
    assert_eq!((plan.targets[0].line, &plan.targets[0].builds), (3, &vec![builds[1].id.clone()]));
    assert_eq!(
        plan.refused[0].why.to_string(),
        format!(
            "line 3 does not exist in build go:old (commit {}): it was added or changed locally; the nearest line that \
             it has is 4",
            &first[..12]
        )
    );
    let error = clone.mapper().plan(Path::new("cart/cart.go"), 9, None, &builds).await.unwrap_err();
    assert_eq!(error, NotThere::BeyondEnd { line: 9, lines: 7 });
    let error = clone.mapper().plan(Path::new("cart/none.go"), 1, None, &builds).await.unwrap_err();
    assert!(matches!(error, NotThere::Unreadable { .. }), "{error}");

    clone.write("shop/cart/new.go", "package cart\n");
    let plan = clone.mapper().plan(Path::new("cart/new.go"), 1, None, &builds[..1]).await.unwrap();
    assert_eq!(
        plan.refused[0].why.to_string(),
        format!("shop/cart/new.go does not exist in build go:old (commit {}): it was added locally", &first[..12])
    );
}

#[tokio::test]
async fn a_build_whose_text_is_not_known_takes_the_line_as_it_is_and_says_so() {
    let (clone, first) = Clone::new();
    let unknown = "0123456789012345678901234567890123456789";
    for (facts, note) in [
        (build("x", None, false), Note::NoRevision),
        (build("x", Some(unknown), false), Note::UnknownCommit { commit: unknown.into() }),
        (build("x", Some("-nonsense"), false), Note::UnknownCommit { commit: "-nonsense".into() }),
        (build("x", Some(&first), true), Note::Modified { commit: first.clone() }),
    ] {
        let place = clone.mapper().to_build(Path::new("cart/cart.go"), 4, None, &facts).await.unwrap();
        assert_eq!(place, Place { file: "cart/cart.go".into(), line: 4, note: Some(note) });
    }
    // Built from an older commit with changes: the commit is still the better evidence.
    clone.write("shop/cart/cart.go", SECOND);
    clone.commit();
    let facts = build("x", Some(&first), true);
    let place = clone.mapper().to_build(Path::new("cart/cart.go"), 5, None, &facts).await.unwrap();
    assert_eq!(place, Place { file: "cart/cart.go".into(), line: 4, note: Some(Note::Modified { commit: first }) });

    let elsewhere = TempDir::new().unwrap();
    std::fs::write(elsewhere.path().join("a.go"), "package a\n").unwrap();
    let mapper = LineMapper::new(elsewhere.path().to_owned(), Vec::new());
    let place = mapper.to_build(Path::new("a.go"), 1, None, &facts).await.unwrap();
    assert_eq!(place.note, Some(Note::NoRepository));
}

#[tokio::test]
async fn a_renamed_file_is_asked_for_by_the_name_that_the_build_knows() {
    let (clone, first) = Clone::new();
    clone.git(&["mv", "shop/cart/cart.go", "shop/cart/basket.go"]);
    let facts = build("old", Some(&first), false);
    let place = clone.mapper().to_build(Path::new("cart/basket.go"), 4, None, &facts).await.unwrap();
    assert_eq!(place, Place { file: "cart/cart.go".into(), line: 4, note: None });
}

#[tokio::test]
async fn a_build_s_line_is_found_in_the_local_checkout() {
    let (clone, first) = Clone::new();
    clone.write("shop/cart/cart.go", SECOND);
    let facts = build("old", Some(&first), false);
    let mapper = clone.mapper();
    for file in ["/build/shop/cart/cart.go", "example.com/shop/cart/cart.go"] {
        let local = mapper.to_local(file, 4, &facts, |_| None).await.unwrap();
        assert_eq!(local.path, clone.path("shop/cart/cart.go").canonicalize().unwrap());
        assert_eq!((local.line, local.note), (Some(5), None));
    }
    let edited = SECOND.replace("total += n", "total -= n");
    let local = mapper.to_local("/build/shop/cart/cart.go", 4, &facts, |_| Some(edited.clone())).await.unwrap();
    assert_eq!(local.line, None, "the line is not there any more");
    assert_eq!(mapper.to_local("/usr/lib/go/src/net/http/server.go", 4, &facts, |_| None).await, None);
    let text = mapper.deployed_text(Path::new("cart/cart.go"), &facts).await.unwrap();
    assert_eq!(&*text, FIRST);
    assert_eq!(mapper.build_path(Path::new("cart/cart.go")).await, "cart/cart.go");
    assert_eq!(mapper.module(Path::new("cart/cart.go")).await.as_deref(), Some("example.com/shop"));
}

#[tokio::test]
async fn rules_say_where_a_build_has_its_files() {
    let (clone, first) = Clone::new();
    let here = clone.folder.path().canonicalize().unwrap().join("shop").to_string_lossy().into_owned();
    let mapper = LineMapper::new(clone.folder.path().to_owned(), vec![("/app".into(), here)]);
    let facts = build("x", Some(&first), false);
    let place = mapper.to_build(Path::new("shop/cart/cart.go"), 4, None, &facts).await.unwrap();
    assert_eq!(place, Place { file: "/app/cart/cart.go".into(), line: 4, note: None });
    let local = mapper.to_local("/app/cart/cart.go", 4, &facts, |_| None).await.unwrap();
    assert_eq!(local.line, Some(4));
}

#[tokio::test]
async fn a_function_is_found_by_its_name_in_the_texts_of_the_builds() {
    let (clone, _) = Clone::new();
    let old = "package cart\n\nfunc (c *Cart) Sum(n int) int {\n\tsum := n\n\tsum += c.left\n\treturn sum\n}\n";
    clone.write("shop/cart/sum.go", old);
    clone.write("shop/other/sum.go", &old.replace("package cart", "package other"));
    let first = clone.commit();
    let new = old.replace("package cart\n", "package cart\n\n// Sums are whole.\n");
    clone.write("shop/cart/sum.go", &new);
    let facts = |text: &str| SourceFacts::of_go_function(text, Some("Cart"), "Sum");
    let mapper = clone.mapper();
    let builds = [build("old", Some(&first), false), build("unknown", None, false)];
    for name in ["example.com/shop/cart.(*Cart).Sum", "cart.(*Cart).Sum"] {
        assert_eq!(mapper.function_sources(name, &builds).await, [facts(old), facts(&new)], "{name}");
    }
    assert_eq!(facts(old).assigned.len(), 1, "{:?}", facts(old));
    for name in ["cart.Sum", "cart.(*Cart).Less", "cart.*", "main.f.func1"] {
        assert_eq!(mapper.function_sources(name, &builds).await, [], "{name}");
    }
    let place = mapper.function_place("cart.(*Cart).Sum-fm").await;
    assert_eq!(place, Some((clone.path("shop/cart/sum.go").canonicalize().unwrap(), 5)));
    assert_eq!(mapper.function_place("cart.(*Cart).Less").await, None);
    clone.write("shop/more/cart/sum.go", old);
    assert_eq!(mapper.function_place("cart.(*Cart).Sum").await, None, "one of two would be a guess");
}
