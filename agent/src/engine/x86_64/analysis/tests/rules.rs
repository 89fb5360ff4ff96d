//! One function for each rule, beside one that keeps it.

use super::*;

#[test]
fn one_long_instruction_is_a_jump_that_needs_no_stop() {
    let choice = Told::default().site(&code(&[&MOV, &[RET]]), 0);
    assert_jump(&choice, &[0]);
    let patch = patch_of(&choice);
    assert!(patch.single_instruction);
    assert_eq!((patch.patch_bytes, patch.resume(), patch.rel32), (5, Some(5), Rel32::default()));
    assert_eq!(choice.reason(), None);
}

#[test]
fn several_instructions_are_a_jump_that_says_why_it_stops() {
    // push; pop; mov: the patch reaches to the end of the last one.
    let choice = Told::default().site(&code(&[&[PUSH, POP], &MOV, &[RET]]), 0);
    assert_jump(&choice, &[0, 1, 2]);
    let patch = patch_of(&choice);
    assert!(!patch.single_instruction);
    assert_eq!((patch.patch_bytes, patch.resume()), (7, Some(7)));
    assert_eq!(patch.rel32, Rel32 { mask: 0xffff, value: 0xcccc });
    assert!(choice.reason().unwrap().contains("has 1 of the 5 bytes"), "{choice:?}");
}

#[test]
fn each_byte_that_is_given_makes_whoever_arrives_there_trap() {
    // Boundaries at every offset from 1 to 4.
    let choice = Told::default().site(&[PUSH, POP, PUSH, POP, NOP, RET], 0);
    let rel32 = patch_of(&choice).rel32;
    assert_eq!(rel32, Rel32 { mask: 0xffff_ffff, value: 0x06cc_cccc });
    let mut bytes = vec![0xe9];
    bytes.extend_from_slice(&rel32.value.to_le_bytes());
    for offset in 1..5 {
        let decoded = iced_x86::Decoder::new(64, &bytes[offset..], iced_x86::DecoderOptions::NONE).decode();
        assert!(decoded.is_invalid() || decoded.mnemonic() == iced_x86::Mnemonic::Int3, "{offset}: {decoded:?}");
    }
    assert!(rel32.allows(0x06cc_cccc) && !rel32.allows(0x05cc_cccc));
    assert!(Rel32::default().allows(-1));
}

#[test]
fn a_branch_into_the_patch_makes_it_punned_and_is_told() {
    // je to 4; push; nop; pop (at 4); xor; mov; ret
    let forward = code(&[&[0x74, 0x02, PUSH, NOP, POP], &XOR, &MOV, &[RET]]);
    let choice = Told::default().site(&forward, 2);
    let SiteChoice::PunnedJump { patch, slow_entries, why } = &choice else { panic!("{choice:?}") };
    assert_eq!(*slow_entries, [AT + 4]);
    assert_eq!(*why, Obstacle::Target { at: AT + 4 });
    assert_eq!(patch.rel32, Rel32 { mask: 0x00ff_ffff, value: 0x00cc_cccc });
    // At the site itself, or behind the jump's five bytes, a branch harms nobody.
    assert_jump(&Told::default().site(&forward, 4), &[0, 1, 3]);
    let behind = code(&[&[0x74, 0x05, PUSH, POP, PUSH, POP, NOP, NOP, RET]]);
    assert_jump(&Told::default().site(&behind, 2), &[0, 1, 2, 3, 4]);
}

#[test]
fn a_loop_that_begins_in_the_patch_takes_a_trap() {
    // push; pop; mov; jne back to 1
    let rounds = code(&[&[PUSH, POP], &MOV, &[0x75, 0xf8, RET]]);
    assert_trap(&Told::default().site(&rounds, 0), Obstacle::LoopHead { at: AT + 1 });
    assert_jump(&Told::default().site(&rounds, 1), &[0, 1]);
}

#[test]
fn the_three_other_ways_in_count_as_branches_do() {
    let straight = code(&[&[PUSH, POP], &MOV, &[RET]]);
    for kind in [EntryKind::Pointer, EntryKind::LandingPad, EntryKind::Branch, EntryKind::Guess] {
        let choice = Told::entry(AT + 1, kind).site(&straight, 0);
        assert!(matches!(choice, SiteChoice::PunnedJump { .. }), "{kind:?}: {choice:?}");
        // The same at the site itself.
        assert_jump(&Told::entry(AT, kind).site(&straight, 0), &[0, 1, 2]);
    }
}

#[test]
fn nobody_may_arrive_in_the_middle_of_a_displaced_instruction() {
    let straight = code(&[&MOV, &[RET]]);
    assert_trap(&Told::entry(AT + 3, EntryKind::Pointer).site(&straight, 0), Obstacle::MidInstruction { at: AT + 3 });
    // A guess at it is a wrong one.
    assert_jump(&Told::entry(AT + 3, EntryKind::Guess).site(&straight, 0), &[0]);
}

#[test]
fn a_branch_over_a_prefix_leaves_two_readings() {
    // je over the lock prefix; lock inc qword [rax]; mov; ret
    let locked = code(&[&[0x74, 0x01, 0xf0, 0x48, 0xff, 0x00], &MOV, &[RET]]);
    let function = Told::default().analyse(&locked);
    assert_trap(&function.site(AT + 2), Obstacle::MidInstruction { at: AT + 3 });
    // Behind it the readings are one again.
    assert_jump(&function.site(AT + 6), &[0]);
    assert!(!function.has_unknown_targets());
    // The branch itself would cover the prefix and what is behind it.
    assert_trap(&function.site(AT), Obstacle::MidInstruction { at: AT + 3 });
}

#[test]
fn a_site_within_the_other_reading_is_refused() {
    // je +1 leads into `mov eax, imm`, whose immediate reads as: mov eax, ... that goes on over the next instruction.
    let twice = [0x74, 0x01, 0xb8, 0xb8, 0x01, 0x02, 0x03, 0x50, 0x58, 0xc3];
    let function = Told::default().analyse(&twice);
    // First reading: je; mov eax, 0x030201b8; push; pop; ret. Second: mov eax, 0x50030201; pop; ret.
    assert_eq!(function.boundaries().collect::<Vec<_>>(), [0, 2, 7, 8, 9].map(|offset| AT + offset));
    assert_refused(&function.site(AT + 7), Refusal::ReadTwice);
}

#[test]
fn a_call_may_come_last_but_not_before() {
    // push; call rel32; ret
    let last = code(&[&[PUSH, 0xe8, 0, 1, 0, 0, RET]]);
    let choice = Told::default().site(&last, 0);
    assert_jump(&choice, &[0, 1]);
    assert!(patch_of(&choice).displaced[1].is_call);
    // call rax; push; pop; nop; ret
    let inside = code(&[&[0xff, 0xd0, PUSH, POP, NOP, RET]]);
    assert_trap(&Told::default().site(&inside, 0), Obstacle::Call { at: AT });
    // push; call rax; nop; nop; ret
    assert_trap(&Told::default().site(&[PUSH, 0xff, 0xd0, NOP, NOP, RET], 0), Obstacle::Call { at: AT + 1 });
}

#[test]
fn a_path_that_ends_may_be_followed_by_padding_only() {
    let other = code(&[&[PUSH, POP, RET], &MOV, &[RET]]);
    assert_trap(&Told::default().site(&other, 0), Obstacle::BlockEnd { at: AT + 3 });
    // pop; ret; int3 three times; then something that a branch leads to.
    let filled = code(&[&[0x74, 0x05, POP, RET, 0xcc, 0xcc, 0xcc], &MOV, &[RET]]);
    let choice = Told::default().site(&filled, 2);
    assert_jump(&choice, &[0, 1]);
    let patch = patch_of(&choice);
    assert_eq!((patch.patch_bytes, patch.resume(), patch.single_instruction), (5, None, false));
    // The interior boundary that counts is that of the ret; the padding's are nobody's.
    assert_eq!(patch.rel32, Rel32 { mask: 0xff, value: 0xcc });
    // jmp; and a nop of four bytes that the branch before leads to.
    let entered = code(&[&[0x74, 0x02, 0xeb, 0x04, 0x0f, 0x1f, 0x40, 0x00], &MOV, &[RET]]);
    assert_trap(&Told::default().site(&entered, 2), Obstacle::BlockEnd { at: AT + 4 });
}

#[test]
fn the_end_of_the_function_may_be_followed_by_padding_only() {
    assert_trap(&Told::default().site(&[PUSH, POP, RET], 0), Obstacle::FunctionEnd);
    let padded =
        |fill: [u8; 4], padding| Told { padding, ..Told::default() }.site(&[&[POP, RET], &fill[..]].concat(), 0);
    for fill in [[0xcc; 4], [0; 4], [0x0f, 0x1f, 0x40, 0x00], [0x66, 0x90, 0x66, 0x90]] {
        assert_jump(&padded(fill, 4), &[0, 1]);
    }
    assert_trap(&padded([PUSH; 4], 4), Obstacle::FunctionEnd);
    // A function that runs over its end runs into the next one.
    assert_trap(&Told::default().site(&[PUSH, POP], 0), Obstacle::FunctionEnd);
    // Something points into the padding.
    let told = Told { padding: 4, ..Told::entry(AT + 3, EntryKind::Pointer) };
    assert_trap(&told.site(&[POP, RET, 0xcc, 0xcc, 0xcc, 0xcc], 0), Obstacle::BlockEnd { at: AT + 3 });
}

#[test]
fn where_recover_goes_on_stays() {
    // push; call deferreturn; ret
    let deferring = code(&[&[PUSH, 0xe8, 0x00, 0x01, 0, 0, RET]]);
    let deferreturn = AT + 6 + 0x100;
    let told = Told { deferreturn: Some(deferreturn), ..Told::default() };
    assert_trap(&told.site(&deferring, 0), Obstacle::Recovery { at: AT + 1 });
    assert_jump(&told.site(&deferring, 1), &[0]);
    let other = Told { deferreturn: Some(deferreturn + 1), ..Told::default() };
    assert_jump(&other.site(&deferring, 0), &[0, 1]);
}

#[test]
fn endbr64_stays() {
    let entry = code(&[&ENDBR, &[PUSH], &MOV, &[RET]]);
    assert_refused(&Told::default().site(&entry, 0), Refusal::Landing { next: AT + 4 });
    assert_jump(&Told::default().site(&entry, 4), &[0, 1]);
    let inside = code(&[&[PUSH], &ENDBR, &[POP, RET]]);
    assert_trap(&Told::default().site(&inside, 0), Obstacle::Landing { at: AT + 1 });
}

#[test]
fn what_cannot_run_elsewhere_is_refused_and_ends_a_patch_before_it() {
    let refused: [(&str, &[u8], Refusal); 16] = [
        ("syscall", &[0x0f, 0x05], Refusal::Fixed),
        ("sysenter", &[0x0f, 0x34], Refusal::Fixed),
        ("far jump", &[0xff, 0x28], Refusal::Fixed),
        ("far call", &[0xff, 0x18], Refusal::Fixed),
        ("far return", &[0xcb], Refusal::Fixed),
        ("iretq", &[0x48, 0xcf], Refusal::Fixed),
        ("xbegin", &[0xc7, 0xf8, 0, 0, 0, 0], Refusal::Fixed),
        ("xabort", &[0xc6, 0xf8, 0], Refusal::Fixed),
        ("mov ss, eax", &[0x8e, 0xd0], Refusal::Fixed),
        ("lea rax, [eip+1]", &[0x67, 0x48, 0x8d, 0x05, 1, 0, 0, 0], Refusal::Fixed),
        ("call rsp", &[0xff, 0xd4], Refusal::Fixed),
        ("hlt", &[0xf4], Refusal::Raises),
        ("int3", &[0xcc], Refusal::Raises),
        ("int 0x80", &[0xcd, 0x80], Refusal::Raises),
        ("ud2", &[0x0f, 0x0b], Refusal::Raises),
        ("cli", &[0xfa], Refusal::Raises),
    ];
    for (name, bytes, want) in refused {
        let alone = code(&[bytes, &[NOP; 6], &[RET]]);
        let choice = Told::default().site(&alone, 0);
        assert_eq!(choice, SiteChoice::Refused { why: want }, "{name}");
        let behind = code(&[&[PUSH], bytes, &[NOP; 6], &[RET]]);
        let choice = Told::default().site(&behind, 0);
        assert!(
            matches!(choice, SiteChoice::Trap { why: Obstacle::Fixed { at }, .. } if at == AT + 1),
            "{name}: {choice:?}"
        );
    }
}

#[test]
fn what_the_encoder_can_move_is_moved() {
    let moved: [(&str, &[u8]); 8] = [
        ("loop", &[0xe2, 0x06]),
        ("jrcxz", &[0xe3, 0x06]),
        ("je", &[0x74, 0x06]),
        ("lea rax, [rip+0x10]", &[0x48, 0x8d, 0x05, 0x10, 0, 0, 0]),
        ("call [rip+0x10]", &[0xff, 0x15, 0x10, 0, 0, 0]),
        ("call rel32", &[0xe8, 0, 1, 0, 0]),
        ("rep movsb", &[0xf3, 0xa4]),
        ("lock xadd [rdi], eax", &[0xf0, 0x0f, 0xc1, 0x07]),
    ];
    for (name, bytes) in moved {
        let choice = Told::default().site(&code(&[bytes, &[NOP; 8], &[RET]]), 0);
        assert!(matches!(choice, SiteChoice::Jump { .. }), "{name}: {choice:?}");
        let first = patch_of(&choice).displaced[0];
        assert_eq!(first.is_rip_relative, name.contains("rip"), "{name}");
        assert_eq!(first.is_call, name.starts_with("call"), "{name}");
        let faults = name.contains("call") || name.contains("movs") || name.contains("lock");
        assert_eq!(first.may_fault, faults, "{name}");
    }
}

#[test]
fn unknown_targets_make_every_patch_of_several_instructions_punned() {
    let straight = code(&[&[PUSH, POP], &MOV, &[RET]]);
    let told = Told { entries_complete: false, ..Told::default() };
    let choice = told.site(&straight, 0);
    assert!(matches!(choice, SiteChoice::PunnedJump { why: Obstacle::UnknownTargets, .. }), "{choice:?}");
    assert_jump(&told.site(&straight, 2), &[0]);
    // Nor is padding certain to be any.
    let filled = code(&[&[POP, RET, 0xcc, 0xcc, 0xcc], &MOV, &[RET]]);
    assert_trap(&told.site(&filled, 0), Obstacle::UnknownTargets);
}

#[test]
fn bytes_that_are_no_instruction_hide_what_follows() {
    let broken = code(&[&[PUSH, POP], &MOV, &[NOP, 0x06, RET]]);
    let function = Told::default().analyse(&broken);
    assert_eq!(function.undecoded(), Some(AT + 8));
    assert!(matches!(function.site(AT), SiteChoice::PunnedJump { .. }));
    assert_trap(&function.site(AT + 7), Obstacle::Undecodable { at: AT + 8 });
    assert_refused(&function.site(AT + 9), Refusal::Undecodable { at: AT + 8 });
}

#[test]
fn only_boundaries_of_the_function_are_sites() {
    let function = Told::default().analyse(&code(&[&MOV, &[RET]]));
    assert_refused(&function.site(AT + 1), Refusal::NoBoundary);
    assert_refused(&function.site(AT - 1), Refusal::Outside);
    assert_refused(&function.site(AT + 6), Refusal::Outside);
    assert_refused(&function.site(u64::MAX), Refusal::Outside);
    assert_eq!(function.instruction_bytes(AT), Some(5));
    assert_eq!(function.instruction_bytes(AT + 1), None);
}

#[test]
fn restartable_sequences_are_left_alone() {
    let straight = code(&[&[PUSH], &MOV, &MOV, &[RET]]);
    let told = Told { restartable: std::iter::once(AT + 1..AT + 6).collect(), ..Told::default() };
    assert_refused(&told.site(&straight, 1), Refusal::Restartable);
    assert_trap(&told.site(&straight, 0), Obstacle::Restartable { at: AT + 1 });
    assert_jump(&told.site(&straight, 6), &[0]);
}

#[test]
fn denied_functions_are_refused_by_language() {
    let straight = code(&[&MOV, &[RET]]);
    let site = |name, language| Told { name, language, ..Told::default() }.site(&straight, 0);
    let denied = [
        ("runtime.mallocgc", Language::Go),
        ("runtime.gopanic.func1", Language::Go),
        ("internal/runtime/maps.(*Map).Get", Language::Go),
        ("internal/bytealg.IndexByteString", Language::Go),
        ("syscall.rawVforkSyscall", Language::Go),
        ("syscall.RawSyscall6", Language::Go),
        ("syscall.forkAndExecInChild1", Language::Go),
        ("syscall.runtime_BeforeFork", Language::Go),
        ("fork", Language::Native),
        ("vfork", Language::Native),
        ("__clone3", Language::Native),
        ("__restore_rt", Language::Native),
        ("pthread_create@@GLIBC_2.34", Language::Native),
        ("_dl_runtime_resolve_xsave", Language::Native),
        ("start_thread", Language::Native),
    ];
    for (name, language) in denied {
        let choice = site(name, language);
        assert!(matches!(choice, SiteChoice::Refused { why: Refusal::Denied { .. } }), "{name}: {choice:?}");
        assert!(choice.reason().unwrap().ends_with("choose a place in the code that calls it"));
    }
    for (name, language) in [
        ("main.fork", Language::Go),
        ("runtime.gopanic", Language::Go),
        ("runtimeutil.Run", Language::Go),
        ("syscall.Read", Language::Go),
        ("forklift", Language::Native),
        ("_ZN3app5cloneEv", Language::Native),
        ("runtime.mallocgc", Language::Native),
        ("", Language::Native),
    ] {
        assert_jump(&site(name, language), &[0]);
    }
    assert!(denied_image("[vdso]").is_some());
    assert!(denied_image("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").is_some());
    assert!(denied_image("/usr/lib/x86_64-linux-gnu/libc.so.6").is_none());
}

#[test]
fn what_cannot_be_a_function_is_an_error() {
    let facts_to = |end, code: &[u8]| {
        let data = Data::default();
        let facts = FunctionFacts {
            name: "",
            language: Language::Go,
            end,
            entries: &[],
            entries_complete: true,
            data: &data,
            text: &[],
            position_independent: true,
            deferreturn: None,
            restartable: &[],
        };
        FunctionAnalysis::of(code, AT, &facts).map(|_| ())
    };
    assert_eq!(facts_to(AT, &[]), Err(AnalysisError::Empty));
    for end in [AT, AT - 1, AT + 2, 0, u64::MAX] {
        assert_eq!(facts_to(end, &[RET]), Err(AnalysisError::BadEnd { start: AT, end, bytes: 1 }));
    }
    let long = vec![NOP; FUNCTION_BYTES_MAX + 1];
    assert_eq!(facts_to(AT + 1, &long), Err(AnalysisError::TooLong { bytes: FUNCTION_BYTES_MAX + 1 }));
    assert_eq!(facts_to(AT + 1, &[RET]), Ok(()));
}
