//! The run's numbers for Prometheus: text over HTTP, on loopback only.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{EvaluationReport, Event, Sink, StepReport};
use crate::error::{Error, Result};

/// A scraper that takes longer to ask or to read is hung up on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request that are looked at.
const LONGEST_REQUEST: usize = 8 << 10;

/// Answers `GET /metrics`, one scraper after the other, until it is dropped.
pub struct Prometheus {
    address: SocketAddr,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    numbers: Mutex<Numbers>,
    closing: AtomicBool,
}

/// What was told last.
#[derive(Debug, Default)]
struct Numbers {
    run: String,
    model: String,
    total_steps: usize,
    step: StepReport,
    evaluation: Option<EvaluationReport>,
    process_bytes: u64,
    steps: u64,
    tokens: u64,
    state: &'static str,
}

impl Prometheus {
    /// Listens on 127.0.0.1; port 0 leaves the choice to the system.
    ///
    /// # Errors
    /// A user error if the port is taken.
    pub fn listen(port: u16) -> Result<Self> {
        let taken = |error: std::io::Error| {
            Error::user(format!("cannot listen on 127.0.0.1:{port}: {error}"))
                .hint("choose another log.prometheus_port")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let work = move || {
            for stream in listener.incoming() {
                if serving.closing.load(Ordering::Acquire) {
                    return;
                }
                // A scraper that fails is asked for nothing; it comes again.
                let _ = stream.and_then(|stream| answer(stream, &serving));
            }
        };
        let worker = std::thread::Builder::new().name("prometheus".into()).spawn(work).map_err(taken)?;
        Ok(Self { address, shared, worker: Some(worker) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Shared {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // Wakes the thread that waits for a scraper.
        let woken = TcpStream::connect_timeout(&self.address, PATIENCE).is_ok();
        if let Some(worker) = self.worker.take().filter(|_| woken) {
            let _ = worker.join();
        }
    }
}

impl Sink for Prometheus {
    fn event(&mut self, event: &Event) {
        let mut numbers = self.shared.numbers();
        match event {
            Event::Started { run, model, total_steps, .. } => {
                (numbers.run, numbers.model) = (run.clone(), model.clone());
                (numbers.total_steps, numbers.state) = (*total_steps, "running");
            }
            Event::Step(report) => {
                numbers.step = report.clone();
                numbers.steps += 1;
                numbers.tokens += report.tokens as u64;
            }
            Event::Evaluation(report) => numbers.evaluation = Some(report.clone()),
            Event::Memory { process_bytes, .. } => numbers.process_bytes = *process_bytes,
            Event::Paused { .. } => numbers.state = "paused",
            Event::Resumed { .. } => numbers.state = "running",
            Event::Finished { .. } => numbers.state = "finished",
            Event::Failed { .. } => numbers.state = "failed",
            _ => {}
        }
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (mut request, mut length) = ([0; LONGEST_REQUEST], 0);
    while length < request.len() && !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut request[length..])? {
            0 => break,
            count => length += count,
        }
    }
    let line = request[..length].split(|&byte| byte == b'\r').next().unwrap_or_default();
    let (status, body) = match line.split(|&byte| byte == b' ').collect::<Vec<_>>()[..] {
        [b"GET", b"/metrics" | b"/", ..] => ("200 OK", shared.numbers().text()),
        [b"GET", ..] => ("404 Not Found", "the numbers are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET is answered\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())
}

impl Numbers {
    /// The exposition format, version 0.0.4.
    fn text(&self) -> String {
        let mut out = String::new();
        let mut put = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP lazytune_{name} {help}\n# TYPE lazytune_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(out, "lazytune_{name}{labels} {}", number(*value));
            }
        };
        let one = |value: f64| [(String::new(), value)];
        let step = &self.step;
        let labels = format!("{{run=\"{}\",model=\"{}\"}}", escaped(&self.run), escaped(&self.model));
        put("run_info", "gauge", "Names of the run.", &[(labels, 1.0)]);
        let states = ["running", "paused", "finished", "failed"]
            .map(|state| (format!("{{state=\"{state}\"}}"), f64::from(u8::from(state == self.state))));
        put("run_state", "gauge", "1 for the state that the run is in.", &states);
        put("steps", "gauge", "Optimizer steps done.", &one(step.step as f64));
        put("total_steps", "gauge", "Optimizer steps of the whole run.", &one(self.total_steps as f64));
        put("reported_steps_total", "counter", "Steps reported by this process.", &one(self.steps as f64));
        put("tokens_total", "counter", "Tokens of the reported steps.", &one(self.tokens as f64));
        put("epoch", "gauge", "Passes over the training rows.", &one(step.epoch));
        put("loss", "gauge", "Mean training loss of the last step, in nats.", &one(step.loss));
        put("learning_rate", "gauge", "Learning rate of the last step.", &one(step.learning_rate));
        put("gradient_norm", "gauge", "Norm of the gradients before clipping.", &one(step.grad_norm));
        put("tokens_per_second", "gauge", "Speed of the last step.", &one(step.tokens_per_second));
        put("step_seconds", "gauge", "Duration of the last step.", &one(step.step_ms / 1e3));
        let stages = [
            ("data_wait", step.data_wait_ms),
            ("forward", step.forward_ms),
            ("backward", step.backward_ms),
            ("optimizer", step.optimizer_ms),
            ("evaluation", step.eval_ms),
            ("checkpoint", step.checkpoint_ms),
        ]
        .map(|(stage, ms)| (format!("{{stage=\"{stage}\"}}"), ms / 1e3));
        put("stage_seconds", "gauge", "Parts of the last step, and what lay before it.", &stages);
        let caches =
            [("plan", step.plan_hits, step.plan_misses), ("tensor", step.tensor_hits, step.tensor_misses)]
                .map(|(cache, hits, misses)| {
                    [("hit", hits), ("miss", misses)].map(|(outcome, count)| {
                        (format!("{{cache=\"{cache}\",outcome=\"{outcome}\"}}"), count as f64)
                    })
                });
        put(
            "cache_requests_total",
            "counter",
            "Requests to the caches of plans and tensors.",
            caches.as_flattened(),
        );
        put("process_resident_bytes", "gauge", "Memory of the process.", &one(self.process_bytes as f64));
        if let Some(evaluation) = &self.evaluation {
            put("evaluation_loss", "gauge", "Mean loss on the validation rows.", &one(evaluation.eval_loss));
        }
        out
    }
}

fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        _ => value.to_string(),
    }
}

/// A label's value: backslashes, quotes and line ends are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_scraper_gets_well_formed_text_and_anyone_else_an_answer() {
        let mut prometheus = Prometheus::listen(0).unwrap();
        let address = prometheus.address();
        assert!(address.ip().is_loopback());
        prometheus.event(&Event::Step(StepReport { step: 7, loss: f64::NAN, ..StepReport::default() }));
        prometheus.shared.numbers().run = "a \"b\"\\\n".into();
        let text = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains(&format!("Content-Length: {}", body.len()))
        );
        assert!(body.contains("run=\"a \\\"b\\\"\\\\\\n\""), "{body}");
        assert!(body.contains("\nlazytune_steps 7\n") && body.contains("\nlazytune_loss NaN\n"));
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("lazytune_"), "{line}");
            value.parse::<f64>().unwrap();
        }
        assert!(ask(address, "GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask(address, &"x".repeat(LONGEST_REQUEST)).starts_with("HTTP/1.1 405"));
        drop(prometheus);
        assert!(TcpStream::connect(address).is_err());
    }
}
