//! Several sites of one function.

use super::*;

/// push, pop, push, pop, mov (5), ret
fn function() -> FunctionAnalysis {
    Told::default().analyse(&code(&[&[PUSH, POP, PUSH, POP], &MOV, &[RET, 0xcc, 0xcc, 0xcc, 0xcc]]))
}

fn kinds(placements: &[Placement]) -> Vec<&'static str> {
    let kind = |placement: &Placement| match &placement.place {
        Place::Own(SiteChoice::Jump { .. }) => "jump",
        Place::Own(SiteChoice::PunnedJump { .. }) => "punned",
        Place::Own(SiteChoice::Trap { why: Obstacle::Neighbour { .. }, .. }) => "neighbour",
        Place::Own(SiteChoice::Trap { .. }) => "trap",
        Place::Own(SiteChoice::Refused { .. }) => "refused",
        Place::Inside { .. } => "inside",
    };
    placements.iter().map(kind).collect()
}

#[test]
fn a_later_site_before_an_earlier_one_takes_a_trap() {
    let function = function();
    let placements = function.choose_all(&[], &[AT + 4, AT + 1, AT]);
    assert_eq!(kinds(&placements), ["jump", "neighbour", "neighbour"]);
    let Place::Own(choice @ SiteChoice::Trap { displaced, .. }) = &placements[1].place else { panic!() };
    assert_eq!(displaced.bytes, 1);
    assert!(choice.reason().unwrap().contains("the tracepoint at 0x401004"), "{choice:?}");
}

#[test]
fn a_later_site_within_an_earlier_patch_names_it() {
    let function = function();
    // The patch at 0 displaces all up to the end of the mov.
    let placements = function.choose_all(&[], &[AT, AT + 1, AT + 4, AT + 9]);
    assert_eq!(kinds(&placements), ["jump", "inside", "inside", "jump"]);
    assert_eq!(placements[2].place, Place::Inside { of: AT });
    // With that one made a trap, all have a place.
    let trap = function.as_trap(AT, Obstacle::Neighbour { at: AT + 1 }).unwrap();
    let again = function.choose_all(&[(AT, trap)], &[AT + 4, AT + 1]);
    assert_eq!(kinds(&again), ["jump", "neighbour"]);
}

#[test]
fn the_same_address_is_answered_as_before() {
    let function = function();
    let first = function.choose_all(&[], &[AT + 4, AT + 4]);
    assert_eq!(first[0], first[1]);
    let trap = function.as_trap(AT + 4, Obstacle::FunctionEnd).unwrap();
    let armed = function.choose_all(&[(AT + 4, trap.clone())], &[AT + 4]);
    assert_eq!(armed[0].place, Place::Own(trap));
}

#[test]
fn what_is_refused_takes_no_place() {
    let function = function();
    assert_eq!(kinds(&function.choose_all(&[], &[AT + 5, AT + 4])), ["refused", "jump"]);
    assert_eq!(function.as_trap(AT + 5, Obstacle::FunctionEnd), None);
}
