//! From where a line is in each build to what is asked of the fleet.

use super::Plan;
use riptrace_protocol::ids::BuildId;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::source::SourceFacts;

/// A place in builds: what a tracepoint asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where.
    pub location: Location,
    /// In which processes.
    pub selector: Selector,
    /// What the builds' sources say of the variables there.
    pub source: Vec<SourceFacts>,
}

impl Plan {
    /// The tracepoints that serve a line: a location with the processes that are meant. One place for all builds needs no
    /// more than the `selector`, and holds for builds that appear later too; several places are told apart by the builds
    /// that have them.
    pub fn places(self, selector: &Selector) -> Vec<Asked> {
        let apart = self.targets.len() > 1 || !self.refused.is_empty();
        let targets = self.targets.into_iter();
        let places = targets.map(|target| {
            let selector = if apart { with_builds(selector, &target.builds) } else { selector.clone() };
            let location = Location::Line { file: target.file, line: target.line };
            Asked { location, selector, source: target.sources }
        });
        places.collect()
    }
}

fn with_builds(selector: &Selector, builds: &[BuildId]) -> Selector {
    let mut text = selector.to_string();
    for build in builds {
        text.push_str(&format!("{}build={build}", if text.is_empty() { "" } else { "," }));
    }
    // Terms of a selector and build ids read back; were one not to, the processes meant stay those of the session.
    Selector::parse(&text).unwrap_or_else(|_| selector.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Target;

    fn target(file: &str, line: u32, builds: &[&str]) -> Target {
        let builds = builds.iter().map(|build| BuildId((*build).to_owned())).collect();
        Target { file: file.into(), line, builds, notes: Vec::new(), sources: Vec::new() }
    }

    #[test]
    fn one_place_is_for_all_builds_and_several_are_told_apart() {
        let selector = Selector::parse("service=cart").unwrap();
        let check = |targets: Vec<Target>, expect: &[(&str, &str)]| {
            let plan = Plan { targets, refused: Vec::new() };
            let places = plan.places(&selector).into_iter();
            let got: Vec<_> = places.map(|it| (it.location.to_string(), it.selector.to_string())).collect();
            let expect: Vec<_> = expect.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(got, expect);
        };
        check(vec![target("cart/cart.go", 42, &["go:a", "go:b"])], &[("cart/cart.go:42", "service=cart")]);
        check(
            vec![target("cart/cart.go", 42, &["go:a/x", "go:b"]), target("cart/cart.go", 40, &["go:c"])],
            &[
                ("cart/cart.go:42", "service=cart,build=go:a/x,build=go:b"),
                ("cart/cart.go:40", "service=cart,build=go:c"),
            ],
        );
    }
}
