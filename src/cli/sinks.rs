//! Where a run's events go besides the terminal.

use std::path::Path;

use crate::error::Result;
use crate::metrics::{Buffered, JsonLines, Prometheus, Recorder, TensorBoard};
use crate::train::Control;
use crate::train::setup::Setup;

/// Opens what the configuration asks for. metrics.jsonl is exact; the others may miss events when they are slow.
///
/// # Errors
/// A data error if a file cannot be written, a user error if a port is taken. Without a control socket the run goes on,
/// which becomes one of its notices.
pub fn open(setup: &mut Setup, run_dir: &Path, control: &Control) -> Result<Recorder> {
    let mut recorder = Recorder::default();
    let first_step = setup.trainer.step;
    let lines = JsonLines::open(&run_dir.join("metrics.jsonl"), first_step)?;
    let written = lines.length();
    recorder.add(Box::new(lines));
    if setup.config.log.tensorboard {
        let board = TensorBoard::create(&run_dir.join("tensorboard"), first_step)?;
        recorder.add(Box::new(Buffered::new("tensorboard", Box::new(board))?));
    }
    if let Some(port) = setup.config.log.prometheus_port {
        let prometheus = Prometheus::listen(port)?;
        setup.notices.push(format!("Prometheus is answered at http://{}/metrics", prometheus.address()));
        recorder.add(Box::new(prometheus));
    }
    #[cfg(unix)]
    match crate::train::control::ControlServer::listen(run_dir, control.clone(), written) {
        Ok(server) => recorder.add(Box::new(server)),
        Err(error) => setup.notices.push(format!("the run cannot be steered from other terminals: {error}")),
    }
    #[cfg(not(unix))]
    let _ = (control, written);
    Ok(recorder)
}
