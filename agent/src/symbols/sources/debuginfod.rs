//! A debuginfod server: `GET /buildid/ID/debuginfo` (debuginfod(8)), over plain HTTP/1.1 (RFC 9112).
//!
//! For a server on the user's network. It does not speak TLS, follows no redirects and sends no cookies.

use super::SYMBOL_FILE_BYTES_MAX;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// How long a server may take to accept a connection, or be silent while it answers: it may unpack a package first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Bytes of one line of an answer's head, and lines of it, at most.
const LINE_BYTES_MAX: u64 = 8 << 10;
const HEAD_LINES_MAX: usize = 128;

/// Fetches the symbols with a GNU build-id into a file; `false` when the server does not have them.
pub(super) fn fetch(server: &str, id: &str, into: &Path) -> Result<bool, String> {
    let (host, base) = address(server)?;
    let text = |error: std::io::Error| format!("{host}: {error}");
    let mut addresses = host.to_socket_addrs().map_err(text)?;
    let address = addresses.next().ok_or_else(|| format!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(SILENCE_MAX)).map_err(text)?;
    stream.set_write_timeout(Some(SILENCE_MAX)).map_err(text)?;
    let request = format!(
        "GET {base}/buildid/{id}/debuginfo HTTP/1.1\r\nHost: {host}\r\nUser-Agent: riptrace\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = BufReader::with_capacity(64 << 10, stream);
    let status = line(&mut answer)?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    let mut length = None;
    let mut chunked = false;
    for lines in 0.. {
        let header = line(&mut answer)?;
        if header.is_empty() {
            break;
        }
        if lines >= HEAD_LINES_MAX {
            return Err("the answer's head does not end".to_owned());
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<u64>().ok(),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    match code {
        Some(200) => {}
        Some(404) => return Ok(false),
        _ => return Err(format!("{host} answered {status:?}")),
    }
    let mut file = File::create(into).map_err(text)?;
    if chunked {
        let mut left = SYMBOL_FILE_BYTES_MAX;
        loop {
            let size = line(&mut answer)?;
            let size = size.split(';').next().unwrap_or_default().trim().to_owned();
            let bytes =
                u64::from_str_radix(&size, 16).map_err(|_| format!("{host}: {size:?} is no size of a chunk"))?;
            if bytes == 0 {
                return Ok(true);
            }
            left = left.checked_sub(bytes).ok_or_else(too_large)?;
            copy(&mut answer, &mut file, bytes)?;
            line(&mut answer)?;
        }
    }
    match length {
        Some(bytes) if bytes > SYMBOL_FILE_BYTES_MAX => return Err(too_large()),
        Some(bytes) => copy(&mut answer, &mut file, bytes)?,
        None => {
            let mut limited = answer.take(SYMBOL_FILE_BYTES_MAX + 1);
            if std::io::copy(&mut limited, &mut file).map_err(text)? > SYMBOL_FILE_BYTES_MAX {
                return Err(too_large());
            }
        }
    }
    Ok(true)
}

fn too_large() -> String {
    format!("the file is larger than {SYMBOL_FILE_BYTES_MAX} bytes")
}

fn copy(from: &mut impl Read, into: &mut File, bytes: u64) -> Result<(), String> {
    let copied = std::io::copy(&mut from.take(bytes), into).map_err(|error| error.to_string())?;
    if copied == bytes { Ok(()) } else { Err(format!("the answer ended {} bytes early", bytes - copied)) }
}

/// A line of the head, without its end.
fn line(from: &mut impl BufRead) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(|error| error.to_string())?;
    if bytes.pop() != Some(b'\n') {
        return Err("the answer has a line that does not end".to_owned());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `http://HOST[:PORT][/BASE]` as `HOST:PORT` and `/BASE`.
fn address(server: &str) -> Result<(String, String), String> {
    let rest = server.strip_prefix("http://").ok_or_else(|| {
        format!("{server}: RipTrace asks debuginfod servers over http:// only; put a proxy of your network in front")
    })?;
    let (host, base) = rest.split_once('/').map_or((rest, ""), |(host, base)| (host, base.trim_end_matches('/')));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:80") };
    let base = if base.is_empty() { String::new() } else { format!("/{base}") };
    if host.chars().chain(base.chars()).any(|character| character.is_control() || character == ' ') {
        return Err(format!("{server:?} is no URL"));
    }
    Ok((host, base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request, and gives back what was asked.
    fn served(answer: Vec<u8>) -> (Result<(bool, Vec<u8>), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}/base/", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while lines.read_line(&mut asked).unwrap() > 2 {}
            // The client may hang up on a bad answer.
            let _ = stream.write_all(&answer);
            asked
        });
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("f");
        let got = fetch(&server, "00ff", &into).map(|found| (found, std::fs::read(&into).unwrap_or_default()));
        (got, serving.join().unwrap())
    }

    #[test]
    fn a_file_is_fetched_by_its_build_id() {
        let (got, asked) = served(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec());
        assert_eq!(got, Ok((true, b"hello".to_vec())));
        assert!(asked.starts_with("GET /base/buildid/00ff/debuginfo HTTP/1.1\r\n"), "{asked}");
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        assert_eq!(served(chunked.to_vec()).0, Ok((true, b"hello".to_vec())));
        assert_eq!(served(b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec()).0, Ok((true, b"hello".to_vec())));
        assert_eq!(served(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec()).0, Ok((false, Vec::new())));
    }

    #[test]
    fn a_bad_answer_is_an_error() {
        for answer in [
            "",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 500 Oops\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        ] {
            assert!(served(answer.as_bytes().to_vec()).0.is_err(), "{answer:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000));
        assert!(served(endless.into_bytes()).0.is_err());
        assert!(served(vec![b'a'; 1 << 16]).0.is_err());
        assert!(fetch("https://host", "00", Path::new("f")).unwrap_err().contains("http://"));
        assert!(fetch("http://a b", "00", Path::new("f")).is_err());
    }
}
