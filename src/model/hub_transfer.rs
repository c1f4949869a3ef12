//! Large files in pieces: what arrived before a connection broke is kept beside the cache's files, as Python's
//! huggingface_hub does, and the next try asks for the rest.
//!
//! A piece is named by the file's etag, so that another version of the file begins anew. A finished file whose etag is
//! its SHA-256 is checked against it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, RANGE};
use reqwest::{Client, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::DownloadProgress;
use crate::error::{Error, Result, ResultExt};

/// Tries in a row that bring nothing.
const IDLE_ATTEMPTS: u32 = 5;
/// Tries in all, however little each brings.
const MOST_ATTEMPTS: u32 = 100;
/// Before the second try; doubled before each one after it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Without a byte from the hub for so long, a try has failed.
const SILENCE: Duration = Duration::from_secs(60);

/// A file's place on the hub and in the cache.
pub(super) struct Transfer<'a> {
    /// `<endpoint>/<owner>/<name>`, of data sets `<endpoint>/datasets/<owner>/<name>`.
    pub repository: Url,
    pub revision: &'a str,
    pub file: &'a str,
    pub token: Option<String>,
    /// The repository's folder in the cache.
    pub folder: PathBuf,
    pub progress: Option<DownloadProgress>,
}

/// What the hub says of a file.
struct About {
    etag: String,
    size: u64,
}

impl Transfer<'_> {
    /// Brings the file's content into the cache's `blobs`. Where the hub does not answer as expected, nothing happens: to
    /// ask it in the usual way then tells why.
    ///
    /// # Errors
    /// The connection breaks again and again, the content is not what the hub announced, or the disk refuses it.
    pub fn run(&self) -> Result<()> {
        // A thread of its own, as the caller's may be one that must not wait for futures.
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| Error::device(format!("cannot start the download: {error}")))?;
                runtime.block_on(self.bring())
            });
            work.join().unwrap_or_else(|_| Err(Error::internal("the download crashed")))
        })
    }

    async fn bring(&self) -> Result<()> {
        let Some(about) = self.about().await else { return Ok(()) };
        let blobs = self.folder.join("blobs");
        let blob = blobs.join(&about.etag);
        if blob.exists() {
            return Ok(());
        }
        let doing = || format!("writing to {}", blobs.display());
        fs::create_dir_all(&blobs).context(doing)?;
        let _lock = self.lock(&about.etag)?;
        let partial = blobs.join(format!("{}.incomplete", about.etag));
        self.bring_whole(&about, &partial).await?;
        if !is_intact(&partial, &about.etag).context(doing)? {
            fs::remove_file(&partial).context(doing)?;
            return Err(Error::data("the content that arrived is not what the hub announced")
                .hint("try again: the file is fetched anew"));
        }
        fs::rename(&partial, &blob).context(doing)
    }

    /// The same lock as other programs take for a file of the cache; waits for theirs.
    fn lock(&self, etag: &str) -> Result<File> {
        let doing = || format!("locking {} in the cache", self.file);
        let (cache, name) = (self.folder.parent(), self.folder.file_name());
        let folder = cache.unwrap_or(Path::new(".")).join(".locks").join(name.unwrap_or_default());
        fs::create_dir_all(&folder).context(doing)?;
        let file = File::create(folder.join(format!("{etag}.lock"))).context(doing)?;
        file.lock().context(doing)?;
        Ok(file)
    }

    /// Asks again until all bytes are there, or tries bring nothing more.
    async fn bring_whole(&self, about: &About, partial: &Path) -> Result<()> {
        let client = Client::builder().read_timeout(SILENCE).build().map_err(network)?;
        let (mut idle, mut attempts) = (0, 0);
        loop {
            let before = length(partial);
            if before == about.size {
                return Ok(());
            }
            attempts += 1;
            let outcome = self.append(&client, about, partial, before).await;
            let kept = length(partial);
            idle = if kept > before { 0 } else { idle + 1 };
            let error = match outcome {
                Ok(()) if kept == about.size => return Ok(()),
                Ok(()) => Error::data("the hub sent less than it announced"),
                Err(Refusal::ForGood(error)) => return Err(error),
                Err(Refusal::ForNow(error)) => error,
            };
            if idle >= IDLE_ATTEMPTS || attempts >= MOST_ATTEMPTS {
                let size = about.size;
                return Err(error
                    .context(format!("{kept} of {size} bytes are here, after {attempts} tries"))
                    .hint("try again later: what is here is kept, and the download goes on there"));
            }
            tokio::time::sleep(FIRST_PAUSE * 2u32.pow(idle)).await;
        }
    }

    /// Adds what follows the first `kept` bytes. A hub that sends everything instead begins the file anew.
    async fn append(
        &self,
        client: &Client,
        about: &About,
        partial: &Path,
        kept: u64,
    ) -> std::result::Result<(), Refusal> {
        let on_disk = |error: std::io::Error| {
            Refusal::ForGood(Error::data(error.to_string()).context(format!("writing {}", partial.display())))
        };
        let mut request = client.get(self.url());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let resumed = kept > 0 && kept < about.size;
        if resumed {
            request = request.header(RANGE, format!("bytes={kept}-"));
        }
        let mut response = request.send().await.map_err(Refusal::network)?;
        let status = response.status();
        if status != StatusCode::OK && status != StatusCode::PARTIAL_CONTENT {
            let error = Error::data(format!("the hub answers {status}"));
            return Err(match status {
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    fs::remove_file(partial).map_err(on_disk)?;
                    Refusal::ForNow(error)
                }
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Refusal::ForNow(error),
                status if status.is_server_error() => Refusal::ForNow(error),
                _ => Refusal::ForGood(error),
            });
        }
        let goes_on = resumed && status == StatusCode::PARTIAL_CONTENT;
        let mut file = OpenOptions::new().create(true).append(true).open(partial).map_err(on_disk)?;
        let mut done = if goes_on { kept } else { 0 };
        file.set_len(done).map_err(on_disk)?;
        while let Some(bytes) = response.chunk().await.map_err(Refusal::network)? {
            file.write_all(&bytes).map_err(on_disk)?;
            done += bytes.len() as u64;
            if done > about.size {
                drop(file);
                fs::remove_file(partial).map_err(on_disk)?;
                return Err(Refusal::ForNow(Error::data("the hub sent more than it announced")));
            }
            if let Some(report) = &self.progress {
                report(self.file, done, about.size);
            }
        }
        Ok(())
    }

    /// The answer to HEAD, without following it to the storage, which knows less.
    async fn about(&self) -> Option<About> {
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(SILENCE).build().ok()?;
        let mut request = client.head(self.url());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.ok()?;
        let status = response.status();
        if !status.is_success() && !status.is_redirection() {
            return None;
        }
        let headers = response.headers();
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()))?;
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let named = !etag.is_empty() && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let size = text(headers, "x-linked-size").or_else(|| text(headers, CONTENT_LENGTH.as_str()))?;
        let size = size.parse().ok().filter(|&size| size > 0)?;
        named.then(|| About { etag: etag.to_owned(), size })
    }

    fn url(&self) -> Url {
        let mut url = self.repository.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push("resolve").push(self.revision).extend(self.file.split('/'));
        }
        url
    }
}

/// Why a try brought less than all.
enum Refusal {
    ForNow(Error),
    ForGood(Error),
}

impl Refusal {
    fn network(error: reqwest::Error) -> Self {
        Self::ForNow(network(error))
    }
}

/// With its causes: "error decoding response body" alone says nothing.
fn network(error: reqwest::Error) -> Error {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Error::data(message)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// Whether the content has the hash that the etag is; an etag that is none says nothing.
fn is_intact(path: &Path, etag: &str) -> std::io::Result<bool> {
    if etag.len() != 64 || !etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(found == etag.to_ascii_lowercase())
}
