//! Names of functions as their authors wrote them: without the compiler's encoding, its hashes, and the types of the
//! parameters.
//!
//! Rust's two manglings (the legacy one is C++'s with a hash; v0 begins with `_R`) and C++'s (Itanium C++ ABI, 5.1). A
//! name that is none of these is shown as it is.

use cpp_demangle::{DemangleOptions, Symbol};

/// Bytes of a mangled name that is decoded: a template's may grow without bound.
const MANGLED_BYTES_MAX: usize = 4096;
/// Bytes of a name that is shown; longer ones are cut, with an ellipsis.
const NAME_BYTES_MAX: usize = 1024;

/// The name of a symbol, for a person.
pub(super) fn demangled(name: &str) -> String {
    if name.len() > MANGLED_BYTES_MAX {
        return shortened(name);
    }
    // Versions of a library's symbols are not part of the name.
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    if (name.starts_with("_R") || has_rust_hash(name))
        && let Ok(rust) = rustc_demangle::try_demangle(name)
    {
        return shortened(&format!("{rust:#}"));
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = Symbol::new(name)
    {
        let options = DemangleOptions::new().no_params().no_return_type();
        if let Ok(text) = symbol.demangle_with_options(&options) {
            return shortened(&text);
        }
    }
    shortened(name)
}

/// `_ZN`..`17h` and sixteen hexadecimal digits and `E`: Rust's legacy mangling; what follows a dot was added later.
fn has_rust_hash(name: &str) -> bool {
    let name = name.split('.').next().unwrap_or(name);
    let hash = name.strip_suffix('E').and_then(|rest| rest.len().checked_sub(19).and_then(|at| rest.get(at..)));
    name.starts_with("_ZN")
        && hash.is_some_and(|hash| {
            hash.strip_prefix("17h").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        })
}

fn shortened(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let end = (0..=NAME_BYTES_MAX).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_their_authors_wrote_them() {
        for (mangled, name) in [
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.123", "core::fmt::Formatter::pad"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("_ZN4shop4Cart3addEiPKc", "shop::Cart::add"),
            ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
            ("qsort_r@@GLIBC_2.8", "qsort_r"),
            ("main", "main"),
            ("_Zgarbage", "_Zgarbage"),
        ] {
            assert_eq!(demangled(mangled), name);
        }
        assert_eq!(demangled(&"x".repeat(5000)).len(), NAME_BYTES_MAX + "…".len());
    }
}
