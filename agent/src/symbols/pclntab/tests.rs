//! The function table of a program of the Go toolchain, whole and damaged.

use super::module::Module;
use super::table::FunctionTable;
use proptest::prelude::*;

/// A table of two functions, `main.a` and `main.b`, the second with lines 7 and 9 of `/m/a.go`.
pub(crate) fn small() -> Vec<u8> {
    let mut bytes = vec![0; 72];
    let put = |bytes: &mut Vec<u8>, at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    bytes[..8].copy_from_slice(&[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]);
    put(&mut bytes, 8, 2);
    put(&mut bytes, 16, 1);
    let part = |bytes: &mut Vec<u8>, field: usize, content: &[u8]| {
        let at = bytes.len() as u64;
        put(bytes, field, at);
        bytes.extend_from_slice(content);
        at
    };
    part(&mut bytes, 32, b"\0main.a\0main.b\0");
    part(&mut bytes, 40, &0u32.to_le_bytes());
    part(&mut bytes, 48, b"/m/a.go\0");
    // Offset 0 is no table; file 0 for 32 bytes; line 7 for 10 bytes, line 9 for 22.
    part(&mut bytes, 56, &[0, 2, 32, 0, 16, 10, 4, 22, 0]);
    let structure = |entry: u32, name: u32, file: u32, line: u32| {
        let words = [entry, name, 16, 0, 0, file, line, 0, 0, 5];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    let functions: [u32; 5] = [0, 20, 32, 64, 64];
    let mut table: Vec<u8> = functions.iter().flat_map(|word| word.to_le_bytes()).collect();
    table.extend(structure(0, 1, 0, 0));
    table.extend(structure(32, 8, 1, 4));
    part(&mut bytes, 64, &table);
    bytes
}

fn read(bytes: Vec<u8>) -> Option<FunctionTable> {
    FunctionTable::new(bytes, Module { text: 0x1000, functions_data: None }).ok()
}

#[test]
fn functions_and_lines_are_read() {
    let table = read(small()).unwrap();
    let names: Vec<String> = table.functions().map(|func| table.name(&func).to_owned()).collect();
    assert_eq!(names, ["main.a", "main.b"]);
    assert_eq!(table.files().collect::<Vec<_>>(), ["/m/a.go"]);
    let func = table.at(0x1025).unwrap();
    assert_eq!((func.entry, func.end, func.args_bytes), (0x1020, 0x1040, 16));
    assert_eq!(table.lines(&func), [(0x1020, 0x102a, "/m/a.go", 7), (0x102a, 0x1040, "/m/a.go", 9)]);
    let calls = table.calls(&func, 0x1030);
    assert_eq!((calls.len(), calls[0].function, calls[0].file, calls[0].line), (1, "main.b", "/m/a.go", 9));
    assert!(table.at(0xfff).is_none() && table.at(0x1040).is_none());
    assert!(table.lines(&table.at(0x1000).unwrap()).is_empty());
}

/// Asks everything of a table.
fn ask(table: &FunctionTable) -> usize {
    let mut answers = table.files().count();
    for func in table.functions() {
        answers += table.name(&func).len() + table.lines(&func).len() + table.inlined_runs(&func).len();
        answers += table.calls(&func, func.entry).len() + usize::from(table.at(func.entry).is_some());
    }
    answers
}

proptest! {
    #[test]
    fn a_damaged_table_gives_less_and_never_a_panic(
        damage in prop::collection::vec((0usize..400, any::<u8>()), 1..12),
        cut in 0usize..400,
    ) {
        let mut bytes = small();
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 4));
        if let Some(table) = read(bytes) {
            prop_assert!(ask(&table) < 100_000_000);
        }
    }
}
