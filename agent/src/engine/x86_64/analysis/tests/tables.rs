//! Jump tables, as compilers write them.

use super::*;

/// Where the tables are.
const TABLE: u64 = 0x50_0000;

/// Offsets from the table to addresses, as its entries.
fn offsets(targets: &[u64]) -> Vec<u8> {
    targets.iter().flat_map(|target| (target.wrapping_sub(TABLE) as u32).to_le_bytes()).collect()
}

/// `lea rdx, [rip+TABLE]`, at an offset of the function.
fn lea(offset: u64, to: u64) -> Vec<u8> {
    let displacement = to.wrapping_sub(AT + offset + 7) as u32;
    [&[0x48, 0x8d, 0x15][..], &displacement.to_le_bytes()].concat()
}

/// mov edi, edi; movsxd rax, [rdx+rdi*4]; add rax, rdx; notrack jmp rax: twelve bytes.
const DISPATCH: [u8; 12] = [0x89, 0xff, 0x48, 0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0x3e, 0xff, 0xe0];

/// cmp edi, 1; ja +19 (behind the jump)
const BOUND: [u8; 5] = [0x83, 0xff, 0x01, 0x77, 0x13];

/// A switch as gcc writes it, of 24 bytes, then nops and a ret.
fn switch() -> Vec<u8> {
    code(&[&BOUND, &lea(5, TABLE), &DISPATCH, &[NOP; 20], &[RET]])
}

fn told(entries: &[u64]) -> Told {
    Told { data: Data::new(vec![(TABLE, offsets(entries))]), ..Told::default() }
}

fn targets(function: &FunctionAnalysis) -> Vec<u64> {
    function.targets().map(|target| target - AT).collect()
}

#[test]
fn a_bounded_table_is_read_exactly() {
    // The third entry is the next table's.
    let function = told(&[AT + 26, AT + 30, AT + 33]).analyse(&switch());
    assert_eq!(targets(&function), [24, 26, 30]);
    assert!(!function.has_unknown_targets());
    let choice = function.site(AT + 25);
    assert!(
        matches!(choice, SiteChoice::PunnedJump { why: Obstacle::Target { at }, .. } if at == AT + 26),
        "{choice:?}"
    );
    assert_jump(&function.site(AT + 34), &[0, 1, 2, 3, 4]);
}

#[test]
fn clang_reads_by_the_index_register_itself() {
    // cmp edi, 1; ja; lea rdx, table; movsxd rax, [rdx+rdi*4] -> as clang: mov eax, edi; movsxd rcx, [rdx+rax*4]
    let dispatch = [0x89, 0xf8, 0x48, 0x63, 0x0c, 0x82, 0x48, 0x01, 0xd1, 0xff, 0xe1];
    let bytes = code(&[&[0x83, 0xff, 0x01, 0x77, 0x12], &lea(5, TABLE), &dispatch, &[NOP; 20], &[RET]]);
    let function = told(&[AT + 26, AT + 30, AT + 33]).analyse(&bytes);
    assert_eq!(targets(&function), [23, 26, 30]);
}

#[test]
fn a_table_that_is_shorter_than_its_bound_is_no_table() {
    let function = told(&[AT + 26]).analyse(&switch());
    assert!(function.has_unknown_targets());
    // Nor is one whose entries lead to no code.
    assert!(told(&[AT + 26, 0x1234]).analyse(&switch()).has_unknown_targets());
    assert!(Told::default().analyse(&switch()).has_unknown_targets());
}

#[test]
fn without_a_bound_a_table_is_read_to_its_end() {
    let unbounded = code(&[&lea(0, TABLE), &DISPATCH, &[NOP; 20], &[RET]]);
    // The last entry is in the middle of an instruction: it is none.
    let function = told(&[AT + 21, AT + 25, AT + 8, 0x1234]).analyse(&unbounded);
    assert_eq!(targets(&function), [21, 25]);
    assert!(!function.has_unknown_targets());
}

#[test]
fn a_bound_of_another_register_is_none() {
    // cmp esi, 0; ja: bounds something else.
    let other = code(&[&[0x83, 0xfe, 0x00, 0x77, 0x13], &lea(5, TABLE), &DISPATCH, &[NOP; 20], &[RET]]);
    let function = told(&[AT + 26, AT + 30, 0x1234]).analyse(&other);
    assert_eq!(targets(&function), [24, 26, 30]);
}

#[test]
fn a_table_whose_base_is_kept_from_before_a_loop_is_found() {
    // lea rdx, table; (loop head:) nop; dispatch; cases; jmp back
    let mut bytes = code(&[&lea(0, TABLE), &[NOP], &DISPATCH, &[NOP; 20]]);
    let back = (7i64 - (bytes.len() as i64 + 2)) as u8;
    bytes.extend_from_slice(&[0xeb, back, RET]);
    let function = told(&[AT + 21, AT + 25, 0x1234]).analyse(&bytes);
    assert_eq!(targets(&function), [7, 21, 25]);
    assert!(!function.has_unknown_targets());
}

#[test]
fn a_jump_by_a_branch_target_reads_all_tables() {
    // A branch leads between the base and the jump: what is in rdx there may be another table's address.
    let second = TABLE + 8;
    let bytes = code(&[&lea(0, second), &[0x74, 0x07], &lea(9, TABLE), &DISPATCH, &[NOP; 20], &[RET]]);
    let mut entries = offsets(&[AT + 30, AT + 31]);
    entries.extend([AT + 40, AT + 41].iter().flat_map(|target| (target.wrapping_sub(second) as u32).to_le_bytes()));
    let told = Told { data: Data::new(vec![(TABLE, entries)]), ..Told::default() };
    let function = told.analyse(&bytes);
    assert_eq!(targets(&function), [16, 30, 31, 40, 41]);
}

#[test]
fn jumps_through_memory_need_nothing_more_than_the_pointers() {
    // jmp [rip+x]; jmp [rax+rdi*8]; mov rax, [rdi]; jmp rax; pop rax; jmp rax
    for bytes in [
        &[0xff, 0x25, 0, 1, 0, 0][..],
        &[0xff, 0x24, 0xf8],
        &[0x48, 0x8b, 0x07, 0xff, 0xe0],
        &[0x58, 0xff, 0xe0],
        // lea rax, [rip+1], and an argument that is a function.
        &[0x48, 0x8d, 0x05, 1, 0, 0, 0, 0xff, 0xe0],
        &[0xff, 0xe2],
    ] {
        let function = Told::default().analyse(&code(&[bytes, &[NOP; 8], &[RET]]));
        assert!(!function.has_unknown_targets(), "{bytes:x?}");
    }
}

#[test]
fn a_computed_jump_that_fits_nothing_may_lead_anywhere() {
    // shl rax, 4; jmp rax -- add rax, rcx (neither an offset); jmp rax -- mov eax, [rdi]; jmp rax
    for bytes in [
        &[0x48, 0xc1, 0xe0, 0x04, 0xff, 0xe0][..],
        &[0x48, 0x31, 0xc9, 0x48, 0x01, 0xc8, 0xff, 0xe0],
        &[0x8b, 0x07, 0xff, 0xe0],
    ] {
        let function = Told::default().analyse(&code(&[bytes, &[NOP; 8], &[RET]]));
        assert!(function.has_unknown_targets(), "{bytes:x?}");
    }
}

#[test]
fn an_address_that_the_code_takes_is_a_way_in() {
    // lea rdx, [rip+..] of its own nop at 9
    let bytes = code(&[&lea(0, AT + 9), &[NOP; 8], &[RET]]);
    assert_eq!(targets(&Told::default().analyse(&bytes)), [9]);
    // mov eax, imm32 counts where code is at fixed addresses only.
    let absolute = code(&[&[0xb8], &((AT + 7) as u32).to_le_bytes(), &[NOP; 8], &[RET]]);
    assert_eq!(targets(&Told::default().analyse(&absolute)), [0u64; 0]);
    let fixed = Told { position_independent: false, ..Told::default() };
    assert_eq!(targets(&fixed.analyse(&absolute)), [7]);
}

#[test]
fn what_leads_out_of_the_function_is_told() {
    // jmp to another function; a table with an entry in another one.
    let function = told(&[AT + 26, AT + 0x200]).analyse(&switch());
    assert!(function.outgoing().contains(&Entry { address: AT + 0x200, kind: EntryKind::Guess }));
    let jump = Told::default().analyse(&[0xe9, 0xfb, 0x01, 0, 0]);
    assert_eq!(jump.outgoing(), [Entry { address: AT + 0x200, kind: EntryKind::Branch }]);
}
