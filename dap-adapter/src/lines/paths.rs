//! Paths of the checkout and paths of a build.
//!
//! A build knows its files by the path on the machine that built it (`/build/shop/cart/cart.go`), or, with `-trimpath`,
//! by the module's path (`example.com/shop/cart/cart.go`). What both end in is the path from the module's root on; a
//! tracepoint asks for that suffix.

use std::path::{Path, PathBuf};

/// Where a local file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home<'a> {
    /// Root of the repository, where there is one.
    pub(super) repository: Option<&'a Path>,
    /// Root of the Go module (the folder of its `go.mod`), where there is one.
    pub(super) module: Option<&'a Path>,
}

/// How a build may know a local file: by the first rule that applies, else by its path from the root of its module, of
/// its repository, or, in Go's caches, of the module that was downloaded or of the toolchain.
///
/// `rules` are pairs of a path of the build and a path here.
pub(super) fn build_path(file: &Path, home: &Home<'_>, rules: &[(String, String)]) -> String {
    let text = slashes(file);
    for (there, here) in rules {
        if let Some(rest) = strip_folder(&text, here) {
            return join(there, rest);
        }
    }
    if let Some((_, rest)) = text.split_once("/pkg/mod/") {
        return rest.to_owned();
    }
    let inner =
        [home.module, home.repository].into_iter().flatten().find_map(|root| strip_folder(&text, &slashes(root)));
    match inner {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => text,
    }
}

/// Local paths that a build's path may stand for, most trustworthy first; the caller looks which of them exist.
/// `roots` are folders of the checkout.
pub(super) fn local_candidates(build_path: &str, roots: &[PathBuf], rules: &[(String, String)]) -> Vec<PathBuf> {
    let mut candidates: Vec<PathBuf> = rules
        .iter()
        .filter_map(|(there, here)| Some(PathBuf::from(join(here, strip_folder(build_path, there)?))))
        .collect();
    // On the machine that built it, the path is right as it is.
    if build_path.starts_with('/') {
        candidates.push(PathBuf::from(build_path));
    }
    let parts: Vec<&str> = build_path.split('/').filter(|part| !part.is_empty()).collect();
    for start in 0..parts.len() {
        let suffix = parts[start..].join("/");
        candidates.extend(roots.iter().map(|root| root.join(&suffix)));
    }
    candidates
}

/// `path` below `folder`, without a slash in front; `None` when it is not below it.
pub(super) fn strip_folder<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let folder = folder.trim_end_matches('/');
    let rest = path.strip_prefix(folder)?;
    if folder.is_empty() { Some(rest.trim_start_matches('/')) } else { rest.strip_prefix('/') }
}

pub(super) fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

fn join(folder: &str, rest: &str) -> String {
    match folder.trim_end_matches('/') {
        "" if folder.is_empty() => rest.to_owned(),
        trimmed => format!("{trimmed}/{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(file: &str, repository: Option<&str>, module: Option<&str>, rules: &[(&str, &str)]) -> String {
        let rules: Vec<_> = rules.iter().map(|(t, h)| ((*t).to_owned(), (*h).to_owned())).collect();
        let home = Home { repository: repository.map(Path::new), module: module.map(Path::new) };
        build_path(Path::new(file), &home, &rules)
    }

    #[test]
    fn a_file_is_asked_for_by_its_path_in_its_module() {
        let (repository, module) = (Some("/home/ana/mono"), Some("/home/ana/mono/shop"));
        assert_eq!(path("/home/ana/mono/shop/cart/cart.go", repository, module, &[]), "cart/cart.go");
        assert_eq!(path("/home/ana/mono/lib/a.c", repository, None, &[]), "lib/a.c");
        assert_eq!(path("/tmp/a.go", None, None, &[]), "/tmp/a.go");
        assert_eq!(path("/home/ana/mono2/a.go", repository, None, &[]), "/home/ana/mono2/a.go");
    }

    #[test]
    fn files_of_other_modules_are_asked_for_by_the_module() {
        let file = "/home/ana/go/pkg/mod/example.com/dep@v1.2.3/x/x.go";
        assert_eq!(
            path(file, None, Some("/home/ana/go/pkg/mod/example.com/dep@v1.2.3"), &[]),
            "example.com/dep@v1.2.3/x/x.go"
        );
    }

    #[test]
    fn rules_come_first_and_match_whole_folders() {
        let rules = [("/build", "/home/ana/shop"), ("example.com/lib", "/home/ana/lib/")];
        assert_eq!(path("/home/ana/shop/cart.go", None, None, &rules), "/build/cart.go");
        assert_eq!(path("/home/ana/lib/x/y.go", None, None, &rules), "example.com/lib/x/y.go");
        assert_eq!(path("/home/ana/shop2/cart.go", None, None, &rules), "/home/ana/shop2/cart.go");
    }

    #[test]
    fn the_longest_suffix_is_tried_first() {
        let roots = [PathBuf::from("/home/ana/shop")];
        let rules = [("/build".to_owned(), "/src".to_owned())];
        let candidates = local_candidates("/build/cart/cart.go", &roots, &rules);
        let candidates: Vec<String> = candidates.iter().map(|path| slashes(path)).collect();
        assert_eq!(
            candidates,
            [
                "/src/cart/cart.go",
                "/build/cart/cart.go",
                "/home/ana/shop/build/cart/cart.go",
                "/home/ana/shop/cart/cart.go",
                "/home/ana/shop/cart.go"
            ]
        );
    }
}
