//! What a process's environment and control group say about it: service, labels, container.

use std::collections::BTreeMap;

/// Service names and label values are cut at this length, in bytes: they are shown in columns.
const NAME_BYTES_MAX: usize = 128;
/// Labels of one process, at most.
const LABELS_MAX: usize = 64;

/// The value of a variable in an environment block (`name=value`, each ended by a zero byte; proc_pid_environ(5)).
pub(super) fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// `RIPTRACE_SERVICE`, else `OTEL_SERVICE_NAME` (OpenTelemetry's own variable), else the executable's name.
pub(super) fn service(environment: &[u8], exe: &str) -> String {
    ["RIPTRACE_SERVICE", "OTEL_SERVICE_NAME"]
        .into_iter()
        .find_map(|name| variable(environment, name).map(|value| cut(value.trim())).filter(|value| !value.is_empty()))
        .unwrap_or_else(|| cut(exe.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or(exe)))
}

/// `RIPTRACE_LABELS=key=value,key=value`. An entry without a key or without `=` says nothing and is left out.
pub(super) fn labels(environment: &[u8]) -> BTreeMap<String, String> {
    let Some(text) = variable(environment, "RIPTRACE_LABELS") else { return BTreeMap::new() };
    text.split(',')
        .filter_map(|entry| entry.split_once('='))
        .map(|(key, value)| (cut(key.trim()), cut(value.trim())))
        .filter(|(key, _)| !key.is_empty())
        .take(LABELS_MAX)
        .collect()
}

/// The container id in /proc/PID/cgroup: 64 hexadecimal digits that stand alone in a path component, as Docker,
/// containerd, CRI-O and Podman write it (`/docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`,
/// `libpod-ID.scope`). The innermost one: containers may nest.
pub(super) fn container(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        line.rsplit(['/', '-', '.', ':'])
            .find(|part| part.len() == 64 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
            .map(str::to_owned)
    })
}

fn cut(text: &str) -> String {
    text.char_indices()
        .take_while(|(at, character)| at + character.len_utf8() <= NAME_BYTES_MAX)
        .map(|(_, character)| character)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_the_most_explicit_name() {
        let exe = "/usr/bin/cartd";
        assert_eq!(service(b"A=1\0", exe), "cartd");
        assert_eq!(service(b"A=1\0", "/usr/bin/cartd (deleted)"), "cartd");
        assert_eq!(service(b"OTEL_SERVICE_NAME=cart\0", exe), "cart");
        assert_eq!(service(b"OTEL_SERVICE_NAME=cart\0RIPTRACE_SERVICE=cart-eu\0", exe), "cart-eu");
        assert_eq!(service(b"RIPTRACE_SERVICE= \0XRIPTRACE_SERVICE=no\0", exe), "cartd");
        assert_eq!(service(&[b"RIPTRACE_SERVICE=".as_slice(), "ä".repeat(100).as_bytes()].concat(), exe).len(), 128);
    }

    #[test]
    fn labels_are_pairs_and_the_rest_is_left_out() {
        let labels = labels(b"RIPTRACE_LABELS=env=prod, zone = b ,junk,=x,empty=\0");
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("empty", ""), ("env", "prod"), ("zone", "b")]);
    }

    #[test]
    fn container_ids_are_found_however_the_runtime_writes_them() {
        let id = "0123456789abcdef".repeat(4);
        for cgroup in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("12:cpu:/docker/{id}\n"),
            format!("0::/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{id}.scope"),
            format!("0::/kubepods/pod12/crio-{id}.scope/container"),
            format!("1:name=systemd:/machine.slice/libpod-{id}.scope"),
        ] {
            assert_eq!(container(&cgroup).as_deref(), Some(id.as_str()), "{cgroup}");
        }
        assert_eq!(container("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(container(&format!("0::/docker-{}.scope", "g".repeat(64))), None);
    }
}
