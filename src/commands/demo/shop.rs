//! The demo's shop: its sources, unpacked as a checkout; its services, built and running.

use super::hosts::{Hosts, terminate};
use crate::failure::Failure;
use crate::provision::{BuildFlags, Cache, GoToolchain};
use include_dir::{Dir, DirEntry, include_dir};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The services, in the order in which they need each other; each has a host of its name.
pub(super) const SERVICES: [&str; 4] = ["pricing", "stock", "cart", "gateway"];
const LOADGEN: &str = "loadgen";
/// How long a service may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(15);

static SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/tests/fixtures/shop");

/// The shop, unpacked and built.
pub(super) struct Build {
    /// Root of the checkout.
    pub(super) checkout: PathBuf,
    programs: BTreeMap<&'static str, PathBuf>,
}

/// Unpacks the sources to the cache and builds the services, once per version of the sources.
pub(super) async fn build(cache: Cache, go: GoToolchain) -> Result<Build, Failure> {
    let failed = |e: String| Failure::Failed(format!("building the shop: {e}"));
    tokio::task::spawn_blocking(move || {
        let folder = cache.root().join(format!("demo-{}", version()));
        let checkout = folder.join("shop");
        unpack(&SOURCES, &checkout).map_err(|e| format!("{}: {e}", checkout.display()))?;
        let mut programs = BTreeMap::new();
        for name in SERVICES.into_iter().chain([LOADGEN]) {
            let program = folder.join("bin").join(name);
            go.build(&checkout, &format!("./cmd/{name}"), &program, &BuildFlags::default())
                .map_err(|e| e.to_string())?;
            programs.insert(name, program);
        }
        Ok(Build { checkout, programs })
    })
    .await
    .map_err(|e| failed(e.to_string()))?
    .map_err(failed)
}

/// Names this version of the sources.
fn version() -> String {
    fn add(dir: &Dir<'_>, hash: &mut Sha256) {
        for entry in dir.entries() {
            match entry {
                DirEntry::Dir(dir) => add(dir, hash),
                DirEntry::File(file) => {
                    hash.update(file.path().as_os_str().as_encoded_bytes());
                    hash.update(file.contents());
                }
            }
        }
    }
    let mut hash = Sha256::new();
    add(&SOURCES, &mut hash);
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn unpack(dir: &Dir<'_>, to: &Path) -> std::io::Result<()> {
    for entry in dir.entries() {
        let path = to.join(entry.path());
        match entry {
            DirEntry::Dir(dir) => unpack(dir, to)?,
            DirEntry::File(file) => {
                // Left alone when it is there: a changed time would make Go build again.
                if fs::read(&path).is_ok_and(|there| there == file.contents()) {
                    continue;
                }
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(&path, file.contents())?;
            }
        }
    }
    Ok(())
}

impl Build {
    /// The line that ends with `// BP marker`, as (path in the checkout, line).
    pub(super) fn spot(&self, file: &'static str, marker: &str) -> Result<Spot, Failure> {
        let end = format!("// BP {marker}");
        let text = SOURCES.get_file(file).and_then(|file| file.contents_utf8()).unwrap_or_default();
        let line = (1..).zip(text.lines()).find(|(_, line)| line.ends_with(&end)).map(|(number, _)| number);
        line.map(|line| Spot { file, path: self.checkout.join(file), line })
            .ok_or_else(|| Failure::Failed(format!("{file} has no line {end:?}")))
    }
}

/// A line of the checkout.
pub(super) struct Spot {
    pub(super) file: &'static str,
    pub(super) path: PathBuf,
    pub(super) line: u32,
}

/// The running services.
pub(super) struct Shop {
    services: Vec<Child>,
    loadgen: PathBuf,
    gateway: String,
}

impl Shop {
    /// Starts the services, each on the host of its name.
    pub(super) async fn start(build: &Build, hosts: &Hosts) -> Result<Shop, Failure> {
        let mut urls: BTreeMap<&str, String> = BTreeMap::new();
        let mut services = Vec::new();
        for name in SERVICES {
            let mut command = hosts.service(name, &build.programs[name]);
            command.arg("--listen").arg(format!("{}:0", hosts.address(name)));
            let needs: &[&str] = match name {
                "cart" => &["pricing", "stock"],
                "gateway" => &["cart"],
                _ => &[],
            };
            for need in needs {
                command.arg(format!("--{need}")).arg(&urls[need]);
            }
            let mut child = command.spawn().map_err(|e| Failure::Failed(format!("cannot start {name}: {e}")))?;
            let hello = tokio::time::timeout(START_TIMEOUT, first_line(&mut child))
                .await
                .map_err(|_| Failure::Failed(format!("{name} did not listen within {} s", START_TIMEOUT.as_secs())))?;
            let address = hello.as_ref().and_then(|hello| hello["listen"].as_str());
            let address = address.ok_or_else(|| Failure::Failed(format!("{name} ended before it listened")))?;
            urls.insert(name, format!("http://{address}"));
            services.push(child);
        }
        let gateway = urls.remove("gateway").unwrap_or_default();
        Ok(Shop { services, loadgen: build.programs[LOADGEN].clone(), gateway })
    }

    /// Sends orders one after the other; every answer must be right. Returns the load generator's summary.
    pub(super) async fn buy(&self, orders: u32) -> Result<Value, Failure> {
        let output = Command::new(&self.loadgen)
            .args(["--gateway", &self.gateway, "--count", &orders.to_string(), "--workers", "1"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| Failure::Failed(format!("cannot send orders: {e}")))?;
        let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            Ok(summary)
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Failure::Failed(format!("the shop gave wrong answers: {summary} {said}")))
        }
    }

    /// Sends so many orders a second for as long as every answer is right; returns what was wrong.
    pub(super) async fn keep_buying(&self, per_second: u32) -> Failure {
        let output = Command::new(&self.loadgen)
            .args(["--gateway", &self.gateway, "--count", "0", "--rate", &per_second.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            Ok(output) => {
                let (said, status) = (String::from_utf8_lossy(&output.stderr), output.status);
                Failure::Failed(format!("the load generator ended with {status}: {}", said.trim()))
            }
            Err(e) => Failure::Failed(format!("cannot send orders: {e}")),
        }
    }

    /// Ends the services.
    pub(super) async fn stop(self) {
        for service in self.services.into_iter().rev() {
            terminate(service).await;
        }
    }
}

async fn first_line(child: &mut Child) -> Option<Value> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}
