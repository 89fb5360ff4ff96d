//! Patterns of functions: `main.*`, `*.Handle*`, `stock.(*Shelf).*`.
//!
//! `*` stands for any run of characters, none included. The `*` of a pointer receiver, `(*Shelf)`, is a letter of Go's
//! and no wildcard. A pattern begins where a name may: at the whole name, or behind a `/`, a `.` or a `::`.

use riptrace_protocol::selector::glob;

/// Whether a name has a wildcard.
pub(super) fn is_pattern(name: &str) -> bool {
    let before = std::iter::once(None).chain(name.chars().map(Some));
    before.zip(name.chars()).any(|(before, character)| character == '*' && before != Some('('))
}

/// Whether a name fits a pattern; both without pointer receivers and type arguments.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    // A glob knows a second wildcard, which no function has in its name.
    if pattern.contains('?') {
        return false;
    }
    let behind = |(at, _): (usize, char)| {
        let rest = &name[at..];
        let boundary = ["::", "/", "."].into_iter().find(|boundary| rest.starts_with(boundary))?;
        Some(&rest[boundary.len()..])
    };
    std::iter::once(name).chain(name.char_indices().filter_map(behind)).any(|end| glob(pattern, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_receiver_is_no_wildcard() {
        for name in ["main.*", "*", "*.Handle*", "main.(*Cart).*", "main.f*:x"] {
            assert!(is_pattern(name), "{name}");
        }
        for name in ["main.f", "main.(*Cart).Add", "(*Cart).Add", ""] {
            assert!(!is_pattern(name), "{name}");
        }
    }

    #[test]
    fn a_pattern_begins_where_a_name_may() {
        for (pattern, name) in [
            ("main.*", "main.f"),
            ("cart.*", "example.com/shop/cart.Cart.Add"),
            ("Cart.*", "example.com/shop/cart.Cart.Add"),
            ("shop/cart.*", "example.com/shop/cart.Cart.Add"),
            ("Handle*", "web.Server.HandleAll"),
            ("queue::*", "app::queue::Queue::push"),
            ("*", ""),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("art.*", "cart.Add"), ("main.*", "domain.f"), ("main.?", "main.f"), ("*.Add", "Added")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
