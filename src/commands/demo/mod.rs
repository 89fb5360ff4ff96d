//! `riptrace demo`: a small shop of Go services on four hosts, traced through the real debug adapter.
//!
//! It does what a person with an editor does: opens the sources, sets a breakpoint and two logpoints in three services,
//! sends some orders, reads the hits in one order, and steps back and forth over two of them. It sees whatever the
//! editor would see, and nothing else. It fails when an expected hit is missing, and leaves nothing running.

mod editor;
mod hosts;
mod script;
mod shop;

use crate::args;
use crate::failure::Failure;
use crate::nats_server::{NatsServer, NatsServerConfig};
use crate::output;
use crate::provision::{self, Cache, GoToolchain, GoVersion};
use crate::shutdown;
use hosts::Hosts;
use std::path::PathBuf;
use std::time::Duration;

/// How long the story may take once everything is built: nobody watches a demo that hangs.
const STORY_TIMEOUT: Duration = Duration::from_secs(110);

/// Tells the story, or with `--stay` keeps the stage up; everything it started is gone when it returns.
pub(super) async fn run(args: args::Demo) -> Result<(), Failure> {
    let signals = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let interrupted = signals.clone().ended();
    let prepared = async {
        let tools = provisioned().await?;
        output::note("demo: building the shop (gateway, cart, pricing, stock)");
        let build = shop::build(tools.cache, tools.go).await?;
        Ok::<_, Failure>((tools.nats_server, build))
    };
    let (nats_server, build) = tokio::select! {
        prepared = prepared => prepared?,
        () = interrupted => return Err(Failure::Failed("interrupted before anything was started".to_owned())),
    };
    if args.stay {
        return stay(nats_server, build, args, signals).await;
    }
    tokio::select! {
        told = tell(nats_server, build, args.loopback) => told,
        () = signals.ended() => Err(Failure::Failed("interrupted; everything the demo started has been ended".to_owned())),
    }
}

async fn tell(nats_server: PathBuf, build: shop::Build, loopback: bool) -> Result<(), Failure> {
    let story = async {
        let stage = Stage::set(nats_server, &build, loopback).await?;
        let told = script::run(&stage.server.url(), &build, &stage.hosts, &stage.shop, &stage.fleet).await;
        stage.strike().await;
        told
    };
    tokio::time::timeout(STORY_TIMEOUT, story).await.unwrap_or_else(|_| {
        Err(Failure::Failed(format!(
            "the demo did not come to its end within {} s: set RIPTRACE_LOG=info to see why",
            STORY_TIMEOUT.as_secs()
        )))
    })
}

struct Tools {
    cache: Cache,
    nats_server: PathBuf,
    go: GoToolchain,
}

async fn provisioned() -> Result<Tools, Failure> {
    tokio::task::spawn_blocking(|| {
        let cache = Cache::from_env()?;
        let say = &mut |progress: provision::Progress| output::note(&format!("demo: {progress}"));
        let nats_server = provision::nats_server(&cache, say)?;
        let go = provision::go(&cache, GoVersion::newest(), say)?;
        Ok(Tools { cache, nats_server, go })
    })
    .await
    .map_err(|e| Failure::Failed(e.to_string()))?
    .map_err(|e: provision::ProvisionError| Failure::Unreachable(e.to_string()))
}

/// Orders a second that keep coming with `--stay`: enough to see hits at once, few enough to read.
const STAY_RATE: u32 = 2;

async fn stay(
    nats_server: PathBuf,
    build: shop::Build,
    args: args::Demo,
    signals: shutdown::Shutdown,
) -> Result<(), Failure> {
    let stage = Stage::set(nats_server, &build, args.loopback).await?;
    let url = stage.server.url();
    let shown = if args.json {
        output::json_line(&serde_json::json!({"type": "ready", "nats": url, "checkout": build.checkout}))
    } else {
        let checkout = build.checkout.display();
        output::line(&format!(
            "The shop runs on {} hosts and gets {STAY_RATE} orders a second.\n  riptrace ps --nats {url}\n  riptrace \
             trace cart/cart.go:{} --nats {url}\nFor your editor: open {checkout}, and attach with \"nats\": \
             \"{url}\".\nCtrl-C ends it all.",
            stage.hosts.names().len(),
            build.spot("cart/cart.go", "cart-add")?.line,
        ))
    };
    shown.map_err(|e| Failure::Failed(format!("nobody reads the demo: {e}")))?;
    let ended = tokio::select! {
        wrong = stage.shop.keep_buying(STAY_RATE) => Err(wrong),
        () = signals.ended() => Ok(()),
    };
    stage.strike().await;
    ended
}

/// Everything that runs: hosts, bus, coordinator and agents, services.
struct Stage {
    shop: shop::Shop,
    fleet: hosts::Fleet,
    server: NatsServer,
    hosts: Hosts,
    _store: tempfile::TempDir,
}

impl Stage {
    async fn set(nats_server: PathBuf, build: &shop::Build, loopback: bool) -> Result<Stage, Failure> {
        let store = tempfile::Builder::new()
            .prefix("riptrace-demo-")
            .tempdir()
            .map_err(|e| Failure::Failed(format!("no folder for the message store: {e}")))?;
        let hosts = Hosts::new(&shop::SERVICES, loopback)?;
        output::note(&format!("demo: {}", hosts.describe()));
        let config = NatsServerConfig { listen: hosts.gateway(), ..NatsServerConfig::new(nats_server, store.path()) };
        let server = NatsServer::start(config).await.map_err(|e| Failure::Unreachable(e.to_string()))?;
        let fleet = hosts.start_fleet(&server.url()).await?;
        let shop = shop::Shop::start(build, &hosts).await?;
        let found = |view: &riptrace_protocol::fleet::FleetView| {
            let services = view.hosts.iter().flat_map(|host| &host.profile.processes).map(|process| &process.service);
            shop::SERVICES.iter().all(|name| services.clone().any(|service| service == name))
        };
        fleet.wait_for("all services to be found", found).await?;
        Ok(Stage { shop, fleet, server, hosts, _store: store })
    }

    /// Ends what runs in the order in which it needs each other.
    async fn strike(self) {
        self.shop.stop().await;
        self.fleet.stop().await;
    }
}
