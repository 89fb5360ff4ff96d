//! Which file is that over there? Local paths to the paths that builds know, and back.
//!
//! A build knows a file by its full path on the machine that compiled it, or (Go's `-trimpath`) by module path; either
//! ends in the path below the checkout, so that suffix is what a tracepoint asks for. Back, a build's path is the local
//! file whose path below the checkout is its longest suffix. A suffix of one name (`main.go`) is not taken unless the
//! folder in front of it is the checkout's own, by its name or its Go module: it could be any program's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Build paths whose answer is remembered, at most.
const CACHE_MAX: usize = 20_000;

/// Looks at files of this machine.
pub(crate) trait LocalFiles: Send {
    /// Whether there is a file.
    fn is_file(&self, path: &Path) -> bool;

    /// The module path of the `go.mod` in a folder, if there is one.
    fn go_module(&self, folder: &Path) -> Option<String>;
}

/// The two ways between paths.
pub(super) struct Paths {
    root: PathBuf,
    module: Option<String>,
    /// Local prefix and the build's prefix, tried in order.
    substitutes: Vec<(String, String)>,
    files: Box<dyn LocalFiles>,
    cache: HashMap<String, Option<String>>,
}

impl Paths {
    /// Without a checkout: nothing is mapped.
    pub(super) fn new(files: Box<dyn LocalFiles>) -> Paths {
        Paths { root: PathBuf::new(), module: None, substitutes: Vec::new(), files, cache: HashMap::new() }
    }

    /// Sets the checkout and the pairs of (local prefix, build's prefix).
    pub(super) fn set(&mut self, root: PathBuf, substitutes: Vec<(String, String)>) {
        self.module = self.files.go_module(&root);
        self.root = root;
        self.substitutes = substitutes;
        self.cache.clear();
    }

    /// The checkout.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path, or path suffix, by which builds know a local file.
    pub(super) fn to_build(&self, local: &str) -> String {
        for (here, there) in &self.substitutes {
            if let Some(rest) = below(local, here) {
                return join(there, rest);
            }
        }
        match below(local, &self.root.to_string_lossy()) {
            Some(rest) if !rest.is_empty() && !self.root.as_os_str().is_empty() => rest.to_owned(),
            _ => local.to_owned(),
        }
    }

    /// The local file that a build's path names.
    pub(super) fn local_of(&mut self, build: &str) -> Option<String> {
        if let Some(known) = self.cache.get(build) {
            return known.clone();
        }
        if self.cache.len() >= CACHE_MAX {
            self.cache.clear();
        }
        let local = self.find(build);
        self.cache.insert(build.to_owned(), local.clone());
        local
    }

    fn find(&self, build: &str) -> Option<String> {
        for (here, there) in &self.substitutes {
            if let Some(rest) = below(build, there) {
                let local = join(here, rest);
                if self.files.is_file(Path::new(&local)) {
                    return Some(local);
                }
            }
        }
        if build.starts_with('/') && self.files.is_file(Path::new(build)) {
            return Some(build.to_owned());
        }
        if self.root.as_os_str().is_empty() {
            return None;
        }
        let parts: Vec<&str> = build.split('/').filter(|part| !part.is_empty()).collect();
        if parts.contains(&"..") {
            return None;
        }
        (0..parts.len()).find_map(|from| {
            let (folder, suffix) = parts.split_at(from);
            if suffix.len() == 1 && !self.is_checkout(folder) {
                return None;
            }
            let local = self.root.join(suffix.join("/"));
            self.files.is_file(&local).then(|| local.to_string_lossy().into_owned())
        })
    }

    /// Whether a build's folder is the checkout itself.
    fn is_checkout(&self, folder: &[&str]) -> bool {
        let name = self.root.file_name().map(|name| name.to_string_lossy());
        let by_name = name.is_some_and(|name| folder.last().is_some_and(|last| *last == name));
        by_name || self.module.as_ref().is_some_and(|module| folder.join("/").ends_with(module.as_str()))
    }
}

/// What is behind `prefix` in `path`, where the prefix ends at a `/` boundary.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let prefix = prefix.trim_end_matches('/');
    let rest = path.strip_prefix(prefix)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn join(prefix: &str, rest: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    match (prefix.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}/{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(&'static [&'static str]);

    impl LocalFiles for Files {
        fn is_file(&self, path: &Path) -> bool {
            self.0.iter().any(|file| Path::new(file) == path)
        }

        fn go_module(&self, folder: &Path) -> Option<String> {
            (folder == Path::new("/home/ana/checkout")).then(|| "example.com/shop".to_owned())
        }
    }

    fn paths(substitutes: &[(&str, &str)]) -> Paths {
        let files = Files(&[
            "/home/ana/checkout/cart/cart.go",
            "/home/ana/checkout/main.go",
            "/home/ana/lib/x.go",
            "/usr/lib/go/src/net/http/server.go",
        ]);
        let mut paths = Paths::new(Box::new(files));
        let pairs = substitutes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        paths.set(PathBuf::from("/home/ana/checkout"), pairs);
        paths
    }

    #[test]
    fn a_file_of_the_checkout_is_known_by_its_path_below_it() {
        let paths = paths(&[("/home/ana/lib/", "/build/lib"), ("/home/ana/gone", "")]);
        assert_eq!(paths.to_build("/home/ana/checkout/cart/cart.go"), "cart/cart.go");
        assert_eq!(paths.to_build("/home/ana/checkout2/cart.go"), "/home/ana/checkout2/cart.go");
        assert_eq!(paths.to_build("/home/ana/lib/x.go"), "/build/lib/x.go");
        assert_eq!(paths.to_build("/home/ana/gone/a/b.go"), "a/b.go");
    }

    #[test]
    fn a_builds_file_is_found_by_its_longest_suffix() {
        let mut paths = paths(&[("/home/ana/lib", "/build/lib")]);
        for (build, local) in [
            ("/src/shop/cart/cart.go", Some("/home/ana/checkout/cart/cart.go")),
            ("example.com/shop/cart/cart.go", Some("/home/ana/checkout/cart/cart.go")),
            ("cart/cart.go", Some("/home/ana/checkout/cart/cart.go")),
            ("/build/lib/x.go", Some("/home/ana/lib/x.go")),
            ("/usr/lib/go/src/net/http/server.go", Some("/usr/lib/go/src/net/http/server.go")),
            ("net/http/server.go", None),
            ("example.com/shop/main.go", Some("/home/ana/checkout/main.go")),
            ("/src/checkout/main.go", Some("/home/ana/checkout/main.go")),
            ("example.com/other/main.go", None),
            ("main.go", None),
            ("/src/../checkout/cart/cart.go", None),
            ("", None),
        ] {
            assert_eq!(paths.local_of(build).as_deref(), local, "{build}");
            assert_eq!(paths.local_of(build).as_deref(), local, "{build}, remembered");
        }
    }
}
