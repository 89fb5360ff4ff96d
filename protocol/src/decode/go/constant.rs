//! Values of integer types that have named constants: `Paid (2)`.
//!
//! The number is always there: that it is a constant's says nothing of which name the program meant. Several constants
//! of one value are all named; a set of flags is told as one only where the constants of the type are flags.

/// Names that one value is shown with, at most.
const NAMES_MAX: usize = 3;
/// Constants that are single bits make flags if there are so many of them: 1 and 2 alone are just as well counted.
const FLAGS_MIN: usize = 3;

/// A number with the names of its constants.
pub(in crate::decode) fn written(number: i128, names: &[(String, i64)]) -> String {
    let of = |number: i128| names.iter().filter(move |(_, value)| i128::from(*value) == number).map(|(name, _)| name);
    let own: Vec<&str> = of(number).take(NAMES_MAX + 1).map(String::as_str).collect();
    match own.as_slice() {
        [] => flags(number, names).map_or_else(|| number.to_string(), |flags| format!("{flags} ({number})")),
        all if all.len() > NAMES_MAX => format!("{}/... ({number})", all[..NAMES_MAX].join("/")),
        all => format!("{} ({number})", all.join("/")),
    }
}

/// `Read|Write`, where that is what the number is made of.
fn flags(number: i128, names: &[(String, i64)]) -> Option<String> {
    let mut bits: Vec<i64> = names.iter().map(|(_, value)| *value).filter(|value| *value != 0).collect();
    bits.sort_unstable();
    bits.dedup();
    let are_flags = bits.len() >= FLAGS_MIN && bits.iter().all(|bit| *bit > 0 && bit.count_ones() == 1);
    if !are_flags || number <= 0 || bits.iter().fold(0, |all, bit| all | i128::from(*bit)) & number != number {
        return None;
    }
    let set = bits.iter().filter(|bit| number & i128::from(**bit) != 0);
    let name = |bit: &i64| names.iter().find(|(_, value)| value == bit).map(|(name, _)| name.as_str());
    Some(set.filter_map(name).collect::<Vec<_>>().join("|"))
}

#[cfg(test)]
mod tests {
    use super::written;

    #[test]
    fn a_number_is_named_as_far_as_its_type_names_it() {
        let names = |list: &[(&str, i64)]| list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let states: Vec<_> = names(&[("Open", 0), ("Paid", 1), ("closed", 2), ("Settled", 1)]);
        let flags: Vec<_> = names(&[("None", 0), ("R", 1), ("W", 2), ("X", 4)]);
        for (number, list, text) in [
            (0, &states, "Open (0)"),
            (1, &states, "Paid/Settled (1)"),
            (3, &states, "3"),
            (-1, &states, "-1"),
            (5, &flags, "R|X (5)"),
            (8, &flags, "8"),
            (0, &flags, "None (0)"),
        ] {
            assert_eq!(written(number, list), text);
        }
        let many: Vec<_> = names(&[("A", 1), ("B", 1), ("C", 1), ("D", 1)]);
        assert_eq!(written(1, &many), "A/B/C/... (1)");
    }
}
