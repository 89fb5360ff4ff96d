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

/// A folder of the checkout, below which files of a build may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) folder: PathBuf,
    /// Path of the Go module whose root it is.
    pub(super) module: Option<String>,
}

impl Root {
    /// Whether a build's folder is this one: by its name, or by its module's path.
    fn is(&self, build_folder: &[&str]) -> bool {
        let name = self.folder.file_name().map(|name| name.to_string_lossy());
        let by_name = name.is_some_and(|name| build_folder.last().is_some_and(|last| *last == name));
        by_name || self.module.as_deref().is_some_and(|module| !module.is_empty() && build_folder.join("/") == module)
    }
}

/// Local paths that a build's path may stand for, most trustworthy first; the caller looks which of them exist. A name
/// without a folder (`main.go`) could be any program's: it is taken only where the folder in front of it is the root
/// itself, or where nothing stands in front of it.
pub(super) fn local_candidates(build_path: &str, roots: &[Root], rules: &[(String, String)]) -> Vec<PathBuf> {
    let parts: Vec<&str> = build_path.split('/').filter(|part| !part.is_empty()).collect();
    // A path that climbs could lead out of the checkout.
    if parts.contains(&"..") {
        return Vec::new();
    }
    let mut candidates: Vec<PathBuf> = rules
        .iter()
        .filter_map(|(there, here)| Some(PathBuf::from(join(here, strip_folder(build_path, there)?))))
        .collect();
    // On the machine that built it, the path is right as it is.
    if build_path.starts_with('/') {
        candidates.push(PathBuf::from(build_path));
    }
    for start in 0..parts.len() {
        let (folder, suffix) = parts.split_at(start);
        let fitting = roots.iter().filter(|root| suffix.len() > 1 || folder.is_empty() || root.is(folder));
        candidates.extend(fitting.map(|root| root.folder.join(suffix.join("/"))));
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

/// The module's path that a `go.mod` declares (<https://go.dev/ref/mod#go-mod-file-module>).
pub(super) fn module_path(go_mod: &str) -> Option<&str> {
    go_mod.lines().find_map(|line| {
        let path = line.trim().strip_prefix("module")?;
        let path = path.starts_with([' ', '\t']).then_some(path)?;
        let path = path.split("//").next().unwrap_or_default().trim().trim_matches('"');
        (!path.is_empty()).then_some(path)
    })
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
        let roots = [Root { folder: PathBuf::from("/home/ana/shop"), module: Some("example.com/shop".into()) }];
        let rules = [("/build".to_owned(), "/src".to_owned())];
        let candidates = |path: &str| -> Vec<String> {
            local_candidates(path, &roots, &rules).iter().map(|path| slashes(path)).collect()
        };
        assert_eq!(
            candidates("/build/cart/cart.go"),
            [
                "/src/cart/cart.go",
                "/build/cart/cart.go",
                "/home/ana/shop/build/cart/cart.go",
                "/home/ana/shop/cart/cart.go",
            ]
        );
        assert_eq!(candidates("/x/shop/main.go").last().unwrap(), "/home/ana/shop/main.go");
        assert_eq!(candidates("example.com/shop/main.go").last().unwrap(), "/home/ana/shop/main.go");
        assert_eq!(candidates("main.go"), ["/home/ana/shop/main.go"]);
        assert_eq!(candidates("/x/other/main.go").last().unwrap(), "/home/ana/shop/other/main.go");
        assert_eq!(candidates("/x/../shop/main.go"), [""; 0]);
    }

    #[test]
    fn a_module_declares_its_path() {
        assert_eq!(module_path("// c\nmodule example.com/shop // x\n\ngo 1.21\n"), Some("example.com/shop"));
        assert_eq!(module_path("module \"a b\"\n"), Some("a b"));
        assert_eq!(module_path("modulex y\ngo 1.21\n"), None);
    }
}
