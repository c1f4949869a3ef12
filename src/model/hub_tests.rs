use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub on the loopback device with one model, `org/model`.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

struct Site {
    files: BTreeMap<&'static str, &'static [u8]>,
    /// Status for every request, if not the files.
    status: Option<u16>,
    /// GET requests that break off half-way before one succeeds.
    breaks: AtomicU64,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(files: &[(&'static str, &'static [u8])], status: Option<u16>, breaks: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        let files = files.iter().copied().collect();
        let site = Site { files, status, breaks: breaks.into(), requests: Arc::clone(&requests) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                site.answer(stream);
            }
        });
        Self { endpoint, requests }
    }

    fn options(&self, cache: &std::path::Path) -> HubOptions {
        HubOptions {
            endpoint: Some(self.endpoint.clone()),
            cache: Some(cache.to_path_buf()),
            token: Some("secret".into()),
            ..HubOptions::default()
        }
    }
}

impl Site {
    fn answer(&self, mut stream: TcpStream) {
        let mut lines =
            BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
        let request = lines.next().unwrap_or_default();
        let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        assert!(headers.iter().any(|header| header.eq_ignore_ascii_case("authorization: Bearer secret")));
        self.requests.lock().unwrap().push(request.clone());
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let file = path.strip_prefix("/org/model/resolve/").and_then(|rest| rest.split_once('/'));
        let found = file.and_then(|(_, name)| self.files.get(name));
        let (status, body) = match (self.status, found) {
            (Some(status), _) => (status, &b""[..]),
            (None, None) => (404, &b""[..]),
            (None, Some(body)) => (200, *body),
        };
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Connection: close\r\n\r\n",
            body.len(),
            &blake3::hash(path.as_bytes()).to_hex()[..40]
        );
        let _ = stream.write_all(head.as_bytes());
        if method == "GET" {
            let broken =
                self.breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            let sent = if broken.is_ok() { body.len() / 2 } else { body.len() };
            let _ = stream.write_all(&body[..sent]);
        }
    }
}

const FILES: [(&str, &[u8]); 3] = [
    ("config.json", b"{\"model_type\": 1}"),
    ("tokenizer.json", b"{}"),
    ("model.safetensors", b"some weights"),
];

#[test]
fn a_model_is_downloaded_once_and_then_read_offline() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&FILES, None, 0);
    let seen: Arc<Mutex<u64>> = Arc::default();
    let count = Arc::clone(&seen);
    let progress: DownloadProgress = Arc::new(move |_, done, _| *count.lock().unwrap() += done);
    let options = HubOptions { progress: Some(progress), ..server.options(cache.path()) };
    let folder = resolve("org/model", &options).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), b"some weights");
    assert!(folder.join("tokenizer.json").exists() && !folder.join("chat_template.jinja").exists());
    assert!(*seen.lock().unwrap() > 0);

    let asked = server.requests.lock().unwrap().len();
    let offline = HubOptions { offline: true, ..server.options(cache.path()) };
    assert_eq!(resolve("org/model", &offline).unwrap(), folder);
    assert_eq!(server.requests.lock().unwrap().len(), asked);
}

#[test]
fn shards_are_found_through_the_index() {
    let cache = tempfile::tempdir().unwrap();
    let index = br#"{"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        FILES[0],
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
    ];
    let folder = resolve("org/model", &Server::start(&files, None, 0).options(cache.path())).unwrap();
    assert_eq!(std::fs::read(folder.join("model-2.safetensors")).unwrap(), b"two");
    let cache = tempfile::tempdir().unwrap();
    let error = resolve("org/model", &Server::start(&files[..3], None, 0).options(cache.path())).unwrap_err();
    assert!(error.to_string().contains("has no file model-2.safetensors"), "{error}");
}

#[test]
fn a_broken_download_is_tried_again() {
    let cache = tempfile::tempdir().unwrap();
    let folder = resolve("org/model", &Server::start(&FILES, None, 2).options(cache.path())).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), b"some weights");
    let cache = tempfile::tempdir().unwrap();
    let error = resolve("org/model", &Server::start(&FILES, None, 5000).options(cache.path())).unwrap_err();
    assert!(error.to_string().contains("cannot download config.json of org/model (main)"), "{error}");
}

#[test]
fn refusals_say_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let refusal = |status: u16| {
        let server = Server::start(&FILES, Some(status), 0);
        let error = resolve("org/model", &server.options(cache.path())).unwrap_err();
        format!("{error} | {}", error.hint_text().unwrap_or_default())
    };
    assert!(refusal(401).contains("set HF_TOKEN"), "{}", refusal(401));
    assert!(refusal(403).contains("accept its terms"), "{}", refusal(403));
    assert!(refusal(404).contains("check the model's name"), "{}", refusal(404));
    assert!(refusal(503).contains("check the network"), "{}", refusal(503));
}

#[test]
fn offline_without_a_cached_model_is_explained() {
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions { offline: true, cache: Some(cache.path().into()), ..HubOptions::default() };
    let error = resolve("org/model", &options).unwrap_err();
    assert!(error.to_string().contains("config.json is not in the cache"), "{error}");
    assert!(error.hint_text().unwrap().contains("run once without offline"));
}
