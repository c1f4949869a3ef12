//! Downloads that break off, and data sets on the hub, from a server on the loopback device.

#![cfg(feature = "hub")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::Result;
use lazytune::model::hub::{HubOptions, resolve, resolve_dataset};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use support::prepared::{CONFIG, rows, workspace};
use support::workspace::steps;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has, and how it behaves; changed while it runs.
#[derive(Default)]
struct Site {
    /// By path below `/<kind><owner>/<name>`.
    files: BTreeMap<String, Vec<u8>>,
    /// Sizes after which a response breaks off, one for each response to come.
    breaks: Vec<usize>,
    /// Whether ranges are answered with the whole file.
    ignores_ranges: bool,
    /// Status for every request, if not what is asked for.
    status: Option<u16>,
    /// Method, path and range of each request.
    requests: Vec<String>,
}

#[derive(Clone)]
struct Server {
    endpoint: String,
    site: Arc<Mutex<Site>>,
}

impl Server {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        let server = Self { endpoint, site: Arc::new(Mutex::new(Site { files, ..Site::default() })) };
        let running = server.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| running.answer(stream)));
        server
    }

    fn change(&self, change: impl FnOnce(&mut Site)) {
        change(&mut self.site.lock().unwrap());
    }

    fn options(&self, cache: &Path) -> HubOptions {
        let (endpoint, cache) = (Some(self.endpoint.clone()), Some(cache.to_path_buf()));
        HubOptions { endpoint, cache, token: Some("secret".into()), ..HubOptions::default() }
    }

    fn model(&self, cache: &Path) -> Result<PathBuf> {
        resolve("org/model", &self.options(cache))
    }

    /// Requests of contents since the last call, as `file range`.
    fn downloads(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.site.lock().unwrap().requests);
        let contents = requests.into_iter().filter_map(|request| {
            let path = request.strip_prefix("GET ")?.split_once("/resolve/")?.1;
            Some(path.split_once('/')?.1.trim_end().to_owned())
        });
        contents.collect()
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines =
            BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
        let request = lines.next().unwrap_or_default();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let line = headers.iter().find(|line| line.to_lowercase().starts_with(name))?;
            Some(line[name.len() + 1..].trim().to_owned())
        };
        let mut site = self.site.lock().unwrap();
        let range = header("range").unwrap_or_default();
        let (method, path) = request.rsplit_once(' ').unwrap().0.split_once(' ').unwrap();
        site.requests.push(format!("{method} {path} {range}"));
        let allowed = header("authorization").is_some_and(|value| value == "Bearer secret");
        let (status, etag, body) = site.content(path, allowed);
        let start: usize =
            range.strip_prefix("bytes=").map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
        let partial = start > 0 && status == 200 && !site.ignores_ranges;
        let (status, body) = if partial { (206, &body[start..]) } else { (status, &body[..]) };
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\r\n",
            body.len(),
        );
        let _ = stream.write_all(head.as_bytes());
        if method == "GET" {
            let whole = site.breaks.is_empty() || !path.ends_with("safetensors") && !path.ends_with("jsonl");
            let sent = if whole { body.len() } else { site.breaks.remove(0).min(body.len()) };
            let _ = stream.write_all(&body[..sent]);
        }
    }
}

impl Site {
    /// Status, etag and body: files, or the list of them.
    fn content(&self, path: &str, allowed: bool) -> (u16, String, Vec<u8>) {
        let path = path.split('?').next().unwrap();
        if let Some(status) = self.status {
            return (status, String::new(), Vec::new());
        }
        if !allowed {
            return (401, String::new(), Vec::new());
        }
        if path.contains("/tree/") {
            let entry = |(path, content): (&String, &Vec<u8>)| json!({"type": "file", "oid": "0", "size": content.len(), "path": path});
            let list: Vec<Value> = self.files.iter().map(entry).collect();
            return (200, String::new(), json!(list).to_string().into_bytes());
        }
        let file = path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/'));
        match file.and_then(|(_, name)| self.files.get(name)) {
            None => (404, String::new(), Vec::new()),
            Some(body) => (200, etag(body), body.clone()),
        }
    }
}

/// SHA-256 where the hub names a file by it: of content that begins with its name.
fn etag(body: &[u8]) -> String {
    match body.strip_prefix(b"sha256:") {
        Some(rest) => String::from_utf8(rest[..64].to_vec()).unwrap(),
        None => blake3::hash(body).to_hex()[..40].to_owned(),
    }
}

fn weights() -> Vec<u8> {
    (0..100_000u32).flat_map(u32::to_le_bytes).collect()
}

fn model(weights: &[u8]) -> Server {
    Server::start(&[("config.json", b"{}"), ("model.safetensors", weights)])
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (cache, weights) = (tempfile::tempdir().unwrap(), weights());
    let server = model(&weights);
    server.change(|site| site.breaks = vec![150_000, 0, 200_000]);
    let folder = server.model(cache.path()).unwrap();
    assert!(std::fs::read(folder.join("model.safetensors")).unwrap() == weights);
    let asked: Vec<String> =
        server.downloads().into_iter().filter(|request| request.starts_with("model")).collect();
    let from = |start: usize| format!("model.safetensors bytes={start}-");
    assert_eq!(asked, ["model.safetensors", &from(150_000), &from(150_000), &from(350_000)]);
    server.model(cache.path()).unwrap();
    assert!(server.downloads().is_empty());
}

#[test]
fn what_is_kept_of_a_failed_download_serves_the_next_one() {
    let (cache, weights) = (tempfile::tempdir().unwrap(), weights());
    let server = model(&weights);
    server.change(|site| site.breaks = [vec![250_000], vec![0; 50]].concat());
    let error = server.model(cache.path()).unwrap_err();
    let part = "cannot download model.safetensors of org/model";
    assert!(error.to_string().contains(part), "{error}");
    assert!(error.to_string().contains("250000 of 400000 bytes are here, after 6 tries"), "{error}");
    assert!(error.hint_text().unwrap().contains("the download goes on there"));
    server.downloads();
    server.change(|site| site.breaks.clear());
    let folder = server.model(cache.path()).unwrap();
    assert!(std::fs::read(folder.join("model.safetensors")).unwrap() == weights);
    assert!(server.downloads().contains(&"model.safetensors bytes=250000-".to_owned()));
}

#[test]
fn another_version_begins_anew() {
    let (cache, weights) = (tempfile::tempdir().unwrap(), weights());
    let server = model(&weights);
    server.change(|site| site.breaks = [vec![250_000], vec![0; 50]].concat());
    server.model(cache.path()).unwrap_err();
    server.downloads();
    let newer: Vec<u8> = weights.iter().rev().copied().collect();
    server.change(|site| {
        site.breaks.clear();
        site.files.insert("model.safetensors".into(), newer.clone());
    });
    let folder = server.model(cache.path()).unwrap();
    assert!(std::fs::read(folder.join("model.safetensors")).unwrap() == newer);
    assert!(server.downloads().contains(&"model.safetensors".to_owned()));
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let (cache, weights) = (tempfile::tempdir().unwrap(), weights());
    let server = model(&weights);
    server.change(|site| (site.breaks, site.ignores_ranges) = (vec![150_000, 90_000], true));
    let folder = server.model(cache.path()).unwrap();
    assert!(std::fs::read(folder.join("model.safetensors")).unwrap() == weights);
}

#[test]
fn content_that_is_not_what_its_hash_says_is_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let server = model(format!("sha256:{}", "0".repeat(64)).as_bytes());
    let error = server.model(cache.path()).unwrap_err();
    assert!(error.to_string().contains("not what the hub announced"), "{error}");
    let blobs = cache.path().join("models--org--model/blobs");
    let left = std::fs::read_dir(blobs)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("000"));
    assert_eq!(left.count(), 0);
}

fn data() -> Server {
    Server::start(&[
        ("README.md", b"words"),
        ("data/b.jsonl", b"{\"text\": \"b\"}\n"),
        ("data/a.jsonl", b"{\"text\": \"a\"}\n"),
        ("data/more/c.jsonl", b"{\"text\": \"c\"}\n"),
    ])
}

#[test]
fn files_of_a_data_set_are_found_by_glob_and_kept_for_offline_use() {
    let cache = tempfile::tempdir().unwrap();
    let server = data();
    let options = server.options(cache.path());
    let found = |pattern: &str, options: &HubOptions| {
        resolve_dataset("org/set", pattern, options).map(|files| {
            let text = |file: &PathBuf| std::fs::read_to_string(file).unwrap();
            files.iter().map(text).collect::<String>()
        })
    };
    assert_eq!(found("data/*.jsonl", &options).unwrap(), "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    assert_eq!(found("**/c.jsonl", &options).unwrap(), "{\"text\": \"c\"}\n");
    assert_eq!(found("data/b.jsonl", &options).unwrap(), "{\"text\": \"b\"}\n");
    let error = found("*.parquet", &options).unwrap_err();
    assert!(
        error.to_string().contains("no file of org/set (main) matches \"*.parquet\"; it has data/a.jsonl, "),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("hf://datasets/org/set/data/a.jsonl"));
    let error = found("data/none.jsonl", &options).unwrap_err();
    assert!(error.to_string().contains("has no file data/none.jsonl"), "{error}");

    server.downloads();
    let offline = HubOptions { offline: true, ..options };
    assert_eq!(found("data/*.jsonl", &offline).unwrap(), "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    assert_eq!(found("data/a.jsonl", &offline).unwrap(), "{\"text\": \"a\"}\n");
    assert!(found("data/none.jsonl", &offline).unwrap_err().to_string().contains("is not in the cache"));
    assert!(server.site.lock().unwrap().requests.is_empty());
}

#[test]
fn refusals_of_a_data_set_say_what_to_do() {
    let server = data();
    let refusal = |status: Option<u16>, pattern: &str, token: &str| {
        let cache = tempfile::tempdir().unwrap();
        server.change(|site| site.status = status);
        let options = HubOptions { token: Some(token.into()), ..server.options(cache.path()) };
        let error = resolve_dataset("org/set", pattern, &options).unwrap_err();
        format!("{error} | {}", error.hint_text().unwrap_or_default())
    };
    for pattern in ["data/*.jsonl", "data/a.jsonl"] {
        let wrong = refusal(None, pattern, "wrong");
        assert!(wrong.contains("set HF_TOKEN"), "{wrong}");
        let forbidden = refusal(Some(403), pattern, "secret");
        assert!(forbidden.contains("accept its terms"), "{forbidden}");
        let unknown = refusal(Some(404), pattern, "secret");
        assert!(unknown.contains("check the data set's name"), "{unknown}");
        let down = refusal(Some(503), pattern, "secret");
        assert!(down.contains("check the network"), "{down}");
    }
}

#[test]
fn a_run_trains_on_a_data_set_of_the_hub() {
    let workspace = workspace();
    let rows = rows();
    let server = Server::start(&[("data/train-0.jsonl", rows.as_bytes())]);
    server.change(|site| site.breaks = vec![700]);
    let config = CONFIG.replace("[\"rows.jsonl\"]", "\"hf://datasets/org/set@main/data/train-*.jsonl\"");
    workspace.write("run.toml", config);
    let run = |arguments: &[&str], offline: &str| {
        let mut command = workspace.command(arguments);
        command.env("HF_HUB_OFFLINE", offline).env("HF_ENDPOINT", &server.endpoint);
        command.env("HF_TOKEN", "secret").env("HF_HUB_CACHE", workspace.path("cache"));
        command.output().unwrap()
    };
    let output = run(&["data", "run.toml", "--plain"], "0");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("read         20 rows"), "{text}{:?}", output.stderr);
    let output = run(&["train", "run.toml", "--run-dir", "run"], "1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(steps(&workspace.path("run/metrics.jsonl")).len(), 8);
    let resolved = std::fs::read_to_string(workspace.path("run/config.toml")).unwrap();
    assert!(resolved.contains("hf://datasets/org/set@main/data/train-*.jsonl"), "{resolved}");
    workspace.write("run.toml", CONFIG.replace("[\"rows.jsonl\"]", "\"hf://org/set/rows.jsonl\""));
    workspace.run(&["check", "run.toml"]).exits(2).says(&["only data sets of the hub can be read"]);
}
