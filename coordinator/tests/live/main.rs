//! The coordinator on a real `nats-server`, with agents that speak the real protocol from this process.

mod agent;
mod server;
mod viewer;

use agent::{FakeAgent, STARVED};
use riptrace_coordinator::{CoordinatorConfig, CoordinatorError, run};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::subject;
use server::NatsServer;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use viewer::{Viewer, tracepoint};

/// A coordinator in this process.
struct Coordinator {
    task: JoinHandle<Result<(), CoordinatorError>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Coordinator {
    async fn start(server: &NatsServer) -> Coordinator {
        let client = server.client().await;
        let (stop, stopped) = oneshot::channel();
        let task =
            tokio::spawn(
                async move { run(client, CoordinatorConfig::new("0.1.0"), async { drop(stopped.await) }).await },
            );
        let mut coordinator = Coordinator { task, stop: Some(stop) };
        tokio::select! {
            () = Viewer::wait_for_coordinator(server) => coordinator,
            ended = &mut coordinator.task => panic!("the coordinator ended: {ended:?}"),
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }

    /// As SIGKILL does: nothing is flushed, nothing is said.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_two_hosts_arrive_in_one_order() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    // Their clocks are hours apart.
    let one = FakeAgent::start(&server, "web-1", 5_000_000_000_000).await;
    let two = FakeAgent::start(&server, "web-2", 9_000_000_000_000).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(2).await;
    let status = viewer.create(&tracepoint("t1")).await;
    assert_eq!(status.probes.len(), 2, "{status:?}");
    for round in 0..200 {
        let agent = if round % 2 == 0 { &one } else { &two };
        agent.hit("t1").await;
    }
    let hits = viewer.read_hits(200).await;
    assert!(viewer.drops.is_empty(), "{:?}", viewer.drops);
    assert!(hits.iter().all(|hit| !hit.late && hit.service == "cart"));
    // The hits were made one after the other: wherever the coordinator is certain, that is their order.
    for pair in hits.windows(2) {
        assert!(pair[0].time_ns <= pair[1].time_ns);
    }
    for (i, hit) in hits.iter().enumerate() {
        let truth = agent::truth(hit);
        for earlier in &hits[..i] {
            if agent::truth(earlier) > truth {
                assert!(hit.undetermined_with.contains(&earlier.seq) || hit.seq - earlier.seq > 8, "{hit:?}");
            }
        }
    }
    viewer.close().await;
    assert!(one.armed().is_empty() && two.armed().is_empty());
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_is_gone_on_from_without_repeating_or_losing_a_hit() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let two = FakeAgent::start(&server, "web-2", 1_000_000_000).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(2).await;
    viewer.create(&tracepoint("t1")).await;
    for _ in 0..50 {
        one.hit("t1").await;
        two.hit("t1").await;
    }
    viewer.read_hits(60).await;
    coordinator.kill().await;
    for _ in 0..50 {
        one.hit("t1").await;
        two.hit("t1").await;
    }
    let coordinator = Coordinator::start(&server).await;
    viewer.renew().await.unwrap();
    for _ in 0..50 {
        one.hit("t1").await;
        two.hit("t1").await;
    }
    viewer.read_hits(300 - viewer.hits.len()).await;
    assert_eq!(viewer.hits.len(), 300);
    assert!(viewer.drops.is_empty(), "{:?}", viewer.drops);
    viewer.close().await;
    assert!(one.armed().is_empty() && two.armed().is_empty());
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_survived_by_everyone() {
    let mut server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(1).await;
    viewer.create(&tracepoint("t1")).await;
    for _ in 0..40 {
        one.hit("t1").await;
    }
    server.kill();
    for _ in 0..40 {
        one.hit("t1").await;
    }
    server.restart().await;
    for _ in 0..40 {
        one.hit("t1").await;
    }
    viewer.read_hits(120).await;
    assert!(viewer.drops.is_empty(), "{:?}", viewer.drops);
    viewer.close().await;
    assert!(one.armed().is_empty());
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_an_agent_does_not_know_yet_are_asked_for_again() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(1).await;
    viewer.create(&tracepoint(STARVED)).await;
    one.hit(STARVED).await;
    viewer.read_hits(1).await;
    let last = viewer.remove(STARVED).await.unwrap();
    let told: Vec<_> = last.probes.iter().map(|probe| (probe.passages, probe.unfinished)).collect();
    assert_eq!(told, [(1308, false)]);
    viewer.close().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_or_ignored_and_the_session_lives_on() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(1).await;
    let client = server.client().await;
    for garbage in [&b"\xff\x00garbage"[..], b"{}", b"[1,2]", b"null"] {
        for to in [
            subject::SESSION_OPEN,
            subject::SESSION_RENEW,
            subject::SESSION_CLOSE,
            subject::TRACEPOINT_CREATE,
            subject::TRACEPOINT_REMOVE,
        ] {
            let reply = client.request(to, garbage.into()).await.unwrap();
            let reply: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
            assert!(reply["error"].as_str().is_some_and(|why| why.starts_with(to)), "{to}: {reply}");
        }
        for to in ["web-1.debugger.status", "other.debugger.status", "riptrace.coordinator.status"] {
            client.publish(to, garbage.into()).await.unwrap();
        }
        for to in ["web-1.debugger.trace", "a b.debugger.trace".replace(' ', "-").as_str()] {
            client.publish(to.to_owned(), garbage.into()).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    viewer.create(&tracepoint("t1")).await;
    one.hit("t1").await;
    viewer.read_hits(1).await;
    let refused = viewer.remove("nope").await.unwrap_err();
    assert_eq!(refused, "session s1 has no tracepoint nope");
    viewer.close().await;
    let refused = viewer.renew().await.unwrap_err();
    assert!(refused.contains("is not open"), "{refused}");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_coordinator_refuses_to_start() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let client = server.client().await;
    let second = run(client, CoordinatorConfig::new("0.1.0"), std::future::pending());
    let error = tokio::time::timeout(Duration::from_secs(60), second).await.unwrap().unwrap_err();
    assert!(matches!(error, CoordinatorError::AnotherCoordinator { .. }), "{error}");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_renewed_takes_its_probes_along() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(1).await;
    viewer.create(&tracepoint("t1")).await;
    assert_eq!(one.armed().len(), 1);
    one.wait_for_armed(0).await;
    assert!(viewer.renew().await.unwrap_err().contains("is not open"));
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_ends_the_tracepoint_on_all_hosts_and_a_later_host_is_armed() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(1).await;
    let mut counted = tracepoint("t1");
    counted.limits.count = Some(5);
    viewer.create(&counted).await;
    let two = FakeAgent::start(&server, "web-2", 77_000_000).await;
    two.wait_for_armed(1).await;
    for _ in 0..4 {
        one.hit("t1").await;
        two.hit("t1").await;
    }
    viewer.read_hits(5).await;
    one.wait_for_armed(0).await;
    two.wait_for_armed(0).await;
    let status = viewer.remove("t1").await.unwrap();
    assert!(status.ended.is_some_and(|why| why.starts_with("its count of 5 hits was reached")));
    viewer.close().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_batch_and_the_agents_own_drops_are_counted_where_they_belong() {
    let server = NatsServer::start().await;
    let coordinator = Coordinator::start(&server).await;
    let one = FakeAgent::start(&server, "web-1", 0).await;
    let mut viewer = Viewer::open(&server, "s1").await;
    viewer.wait_for_hosts(1).await;
    viewer.create(&tracepoint("t1")).await;
    one.hit("t1").await;
    viewer.read_hits(1).await;
    one.lose_next_batch(7).await;
    one.drop_hits("t1", 3).await;
    one.hit("t1").await;
    viewer.read_hits(1).await;
    viewer.read_drops(2).await;
    let mut told: Vec<_> = viewer.drops.iter().map(|drop| (drop.reason, drop.count)).collect();
    told.sort();
    assert_eq!(told, [(DropReason::Rate, 3), (DropReason::Lost, 7)]);
    viewer.close().await;
    coordinator.stop().await;
}
