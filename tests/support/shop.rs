//! The shop of the fixtures, running: four services, and load on them.

use super::{
    LATER, SOON,
    fixture::{Fixture, Spot},
    fleet::{Fleet, Host},
    process::{Program, command},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The services, in the order in which they have to start.
pub const SERVICES: [&str; 4] = ["pricing", "stock", "cart", "gateway"];

/// A running shop.
pub struct Shop {
    services: BTreeMap<&'static str, Service>,
    loadgen: Fixture,
}

/// A running service.
pub struct Service {
    pub fixture: Fixture,
    pub host: String,
    pub program: Program,
    pub url: String,
}

impl Shop {
    /// Starts each service on the host of its name; without one the first service is on the first host and so on.
    #[track_caller]
    pub fn start(fleet: &Fleet) -> Self {
        let hosts = fleet.hosts();
        Self::start_on(|index| {
            let own = hosts.iter().find(|host| host.name == SERVICES[index]);
            own.unwrap_or(&hosts[index % hosts.len()]).clone()
        })
    }

    /// Starts the services on loopback, without a fleet.
    #[track_caller]
    pub fn start_alone() -> Self {
        Self::start_on(|_| Host { name: "alone".to_owned(), tag: "alone".to_owned(), namespace: None })
    }

    #[track_caller]
    fn start_on(host_of: impl Fn(usize) -> Host) -> Self {
        let mut services = BTreeMap::<&'static str, Service>::new();
        for (index, name) in SERVICES.into_iter().enumerate() {
            let fixture = Fixture::go("shop", &format!("./cmd/{name}"));
            let host = host_of(index);
            let mut made = host.command(&fixture.program);
            made.arg("--listen").arg(format!("{}:0", host.address()));
            let needs: &[&str] = match name {
                "cart" => &["pricing", "stock"],
                "gateway" => &["cart"],
                _ => &[],
            };
            for need in needs {
                made.arg(format!("--{need}")).arg(&services[need].url);
            }
            let mut program = Program::spawn_orderly(name, made);
            let hello = program.json(SOON);
            assert_eq!(hello["service"], name);
            let url = format!("http://{}", hello["listen"].as_str().expect("an address"));
            let host = host.name;
            services.insert(name, Service { fixture, host, program, url });
        }
        Self { services, loadgen: Fixture::go("shop", "./cmd/loadgen") }
    }

    #[track_caller]
    pub fn service(&mut self, name: &str) -> &mut Service {
        self.services.get_mut(name).unwrap_or_else(|| panic!("no service {name}"))
    }

    /// The marked line.
    #[track_caller]
    pub fn spot(&self, marker: &str) -> Spot {
        self.loadgen.spot(marker)
    }

    /// Starts sending requests, with these arguments of the load generator besides the gateway.
    #[track_caller]
    pub fn load(&self, arguments: &[&str]) -> Program {
        let mut made = command(&self.loadgen.program);
        made.arg("--gateway").arg(&self.services["gateway"].url).args(arguments);
        // It belongs to no host, so that no agent looks at it.
        made.env_remove("RIPTRACE_HOST");
        Program::spawn("loadgen", made)
    }

    /// Sends so many requests, all of which must be answered rightly, and returns what the load generator saw.
    #[track_caller]
    pub fn buy(&self, count: u32) -> Value {
        let mut load = self.load(&["--count", &count.to_string(), "--workers", "1"]);
        finish_load(&mut load)
    }

    /// Fails the test if a service has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        for service in self.services.values_mut() {
            service.program.assert_running();
        }
    }

    /// Ends the services, each of which must end orderly.
    #[track_caller]
    pub fn stop(mut self) {
        for name in SERVICES.iter().rev() {
            let program = &mut self.service(name).program;
            program.assert_running();
            let status = program.terminate();
            assert_eq!(status.code(), Some(0), "{}", program.story());
        }
    }
}

/// Waits for a load generator's end, which must be a good one, and returns its summary.
#[track_caller]
pub fn finish_load(load: &mut Program) -> Value {
    let summary = load.json(LATER);
    load.wait_for_code(0, SOON);
    assert_eq!(summary["wrong"], 0, "{summary}");
    assert_eq!(summary["failed"], 0, "{summary}");
    summary
}
