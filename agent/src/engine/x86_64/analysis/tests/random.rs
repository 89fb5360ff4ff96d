//! Bytes that are no code: nothing panics, and what is answered holds.

use super::*;

mod analysis {
    pub(super) use super::super::super::*;
}

#[path = "../../../../../fuzz/exercise.rs"]
mod exercise;

/// Runs in an ordinary test; each takes some ten microseconds. `RIPTRACE_FUZZ_RUNS` says how many there are of each kind
/// otherwise; the last long run is in `agent/fuzz/RESULTS.md`.
const RUNS: u64 = 3_000;
/// Bytes of one function that is changed, at most.
const FUNCTION_BYTES: usize = 600;

fn runs() -> u64 {
    std::env::var("RIPTRACE_FUZZ_RUNS").map_or(RUNS, |text| text.parse().expect("a number of runs"))
}

/// Where the random numbers of a run begin: the same each time in an ordinary test, others with each long run.
fn seed() -> u64 {
    std::env::var("RIPTRACE_FUZZ_SEED").map_or(0x9e37_79b9_7f4a_7c15, |text| text.parse().expect("a number")) | 1
}

/// Marsaglia's xorshift64*: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn arbitrary_bytes_are_analysed_and_the_answers_hold() {
    let mut random = Random(seed());
    for _ in 0..runs() {
        let bytes = (random.next() % 600) as usize;
        // Short branches and the bytes of the interesting instructions, more often than chance gives them.
        let common = [0xeb, 0x74, 0x75, 0xe8, 0xff, 0xe0, 0x48, 0x8d, 0x63, 0xc3, 0xcc, 0x90, 0xf0, 0xe2, 0x0f, 0x05];
        let input: Vec<u8> = (0..bytes)
            .map(|_| match random.next() {
                byte if byte >> 62 == 0 => common[(byte & 15) as usize],
                byte if byte >> 62 == 1 => (byte & 31) as u8,
                byte => byte as u8,
            })
            .collect();
        exercise::exercise(&input);
    }
}

/// Functions that a compiler made, with some of their bytes changed: what is nearly code goes further than what is none.
#[test]
fn changed_functions_are_analysed_and_the_answers_hold() {
    let binary = BinaryCode::open(&std::env::current_exe().expect("this test")).expect("its code");
    let functions: Vec<&[u8]> = (binary.functions())
        .filter_map(|function| {
            let Range { start, end } = function.range;
            binary.bytes_at(start).get(..usize::try_from(end - start).ok()?)
        })
        .filter(|code| (8..=FUNCTION_BYTES).contains(&code.len()))
        .collect();
    assert!(functions.len() > 1000);
    let mut random = Random(seed());
    let mut asked = 0;
    for _ in 0..runs() {
        let code = functions[random.next() as usize % functions.len()];
        // Facts, a place to cut, no data, two entries, a hidden one; then the code.
        let mut input: Vec<u8> = (0..6).map(|n| if n == 2 { 0 } else { random.next() as u8 }).collect();
        input.extend(code);
        // Fewer than there are: something is left.
        for _ in 0..random.next() % 8 {
            let at = 6 + random.next() as usize % (input.len() - 6);
            match random.next() % 4 {
                0 => input[at] ^= 1 << (random.next() % 8),
                1 => input[at] = random.next() as u8,
                2 => drop(input.remove(at)),
                _ => input.insert(at, random.next() as u8),
            }
        }
        exercise::exercise(&input);
        asked += input.len();
    }
    eprintln!("{} runs over {} functions, {asked} bytes", runs(), functions.len());
}

#[test]
fn a_chain_of_overlapping_readings_takes_linear_time() {
    // Branches into the middle of each other, over and over: jmp +1 bytes read as `eb ff`, `ff c0` and so on.
    let mut chain = Vec::new();
    while chain.len() < 1 << 20 {
        chain.extend_from_slice(&[0xeb, 0xff, 0xc0, 0x74, 0xfd, 0x75, 0xfc]);
    }
    let function = Told::default().analyse(&chain);
    assert!(function.targets().count() > 1 << 17);
    let far = AT + chain.len() as u64;
    assert!((AT..far).step_by(4096).all(|address| function.site(address).reason().is_some_and(|why| !why.is_empty())));
}
