//! The sources of a Go function that is known by its name: what they say of its variables, and where it is declared.
//!
//! A name (`example.com/shop/cart.(*Cart).Add`, `cart.Add`, `main.f`) leads to the folders of the checkout that may be its
//! package, and to the files there that declare it. Several may: facts that do not fit a build are not for it. Patterns,
//! closures and names of other languages have none.

use std::path::{Path, PathBuf};

/// Entries of the checkout's folders that are looked at, at most: as many as a large repository has.
const ENTRIES_MAX: usize = 50_000;
/// Files that are read, at most: those of one package's folders.
const FILES_MAX: usize = 500;
/// Bytes of a file that is read, at most.
const FILE_BYTES_MAX: u64 = 2 << 20;
/// Folders of other people's code.
const NOT_SEARCHED: [&str; 4] = ["vendor", "node_modules", "testdata", "target"];

/// A Go function's name, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoName {
    /// Last element of the package's path: the name of its folder, but for `main`.
    package: String,
    /// The type whose method it is.
    pub(super) receiver: Option<String>,
    pub(super) function: String,
}

impl GoName {
    /// Reads a name; `None` for what is no function or method that a source declares by a name.
    pub(crate) fn parse(text: &str) -> Option<GoName> {
        let rest = text.rsplit_once('/').map_or(text, |(_, rest)| rest);
        // `x.Method` as a value is a function of its own.
        let rest = rest.strip_suffix("-fm").unwrap_or(rest);
        let plain = without_brackets(rest);
        let (package, rest) = plain.split_once('.')?;
        let (receiver, function) = match rest.strip_prefix('(') {
            Some(method) => {
                let (receiver, function) = method.split_once(").")?;
                (Some(receiver.trim_start_matches('*')), function)
            }
            None => match rest.split_once('.') {
                Some((receiver, function)) => (Some(receiver), function),
                None => (None, rest),
            },
        };
        let is_name = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c == '_' || c.is_alphanumeric())
                && !text.starts_with(char::is_numeric)
        };
        let is_package = !package.is_empty() && !package.contains(['*', ':', ' ']);
        let is_function = is_package && is_name(function) && receiver.is_none_or(is_name);
        is_function.then(|| GoName {
            package: package.to_owned(),
            receiver: receiver.map(str::to_owned),
            function: function.to_owned(),
        })
    }
}

/// A name without its type arguments.
fn without_brackets(text: &str) -> String {
    let mut depth = 0usize;
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    plain
}

/// The files below a folder that may declare a function, with their texts. Reads the disk.
pub(super) fn declaring(root: &Path, name: &GoName) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    let (mut seen, mut read) = (0usize, 0usize);
    while let Some(folder) = folders.pop() {
        let is_package = name.package == "main"
            || folder.file_name().is_some_and(|it| it.to_string_lossy() == name.package.as_str());
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > ENTRIES_MAX || read >= FILES_MAX {
                return found;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let file = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !file.starts_with('.') && !NOT_SEARCHED.contains(&file.as_str()) {
                folders.push(entry.path());
                continue;
            }
            let is_source = file.ends_with(".go") && !file.ends_with("_test.go");
            let is_small = || entry.metadata().is_ok_and(|it| it.len() <= FILE_BYTES_MAX);
            if !is_package || !kind.is_file() || !is_source || !is_small() {
                continue;
            }
            read += 1;
            if let Ok(text) = std::fs::read_to_string(entry.path())
                && text.contains(&name.function)
            {
                found.push((entry.path(), text));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_its_parts() {
        let name = |package: &str, receiver: Option<&str>, function: &str| {
            Some(GoName { package: package.into(), receiver: receiver.map(str::to_owned), function: function.into() })
        };
        for (text, expected) in [
            ("main.f", name("main", None, "f")),
            ("example.com/shop/cart.(*Cart).Add", name("cart", Some("Cart"), "Add")),
            ("cart.Cart.Len", name("cart", Some("Cart"), "Len")),
            ("example.com/x/list.(*List[go.shape.int]).Push", name("list", Some("List"), "Push")),
            ("slices.Sort[...]", name("slices", None, "Sort")),
            ("main.f.func1", name("main", Some("f"), "func1")),
            ("main.f.func1.2", None),
            ("main.(*T).M-fm", name("main", Some("T"), "M")),
            ("func(int) at 0x500", None),
            ("func(x.T) at 0x500", None),
            ("main.*", None),
            ("*.Handle*", None),
            ("ns::f(int)", None),
            ("printf", None),
            ("", None),
        ] {
            assert_eq!(GoName::parse(text), expected, "{text}");
        }
    }
}
