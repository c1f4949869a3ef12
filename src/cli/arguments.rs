//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Fine-tune language models with LoRA: one lazy graph per step, planned once, replayed on your machine.
#[derive(Debug, Parser)]
#[command(name = "lazytune", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train an adapter (or a whole model) as a TOML file says
    Train(TrainArguments),
    /// Look at a run: live where it is running, else from its beginning to its end
    Watch(WatchArguments),
    /// List runs
    Runs(RunsArguments),
    /// Show two runs over each other
    Compare(CompareArguments),
    /// Show what will be trained on: rows with their trained tokens marked, lengths, duplicates, leaks, packing
    Data(DataArguments),
    /// Show what a training step would do and how much memory it takes, without loading a weight
    Plan(PlanArguments),
    /// Measure training steps: latency, speed against this machine's peak, memory, and where the time goes
    Bench(BenchArguments),
    /// Run every operation of a training step on a device, compare its results and time it
    Selftest(SelftestArguments),
    /// Check a configuration, its data and its model, and list what is wrong
    Check(CheckArguments),
    /// Continue a prompt with a model, with or without an adapter
    Generate(GenerateArguments),
    /// Fold an adapter into its model and write a Hugging Face folder
    Merge(MergeArguments),
    /// List the families of models that can be trained
    Models(ModelsArguments),
    /// Show what a model or an adapter is, without loading its weights
    Inspect(InspectArguments),
    /// Describe the configuration file
    Config(ConfigArguments),
}

impl Arguments {
    /// Whether only errors are wanted.
    pub fn quiet(&self) -> bool {
        matches!(&self.command, Command::Train(arguments) if arguments.quiet)
    }
}

/// A configuration with changes.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// TOML file; `lazytune config schema` and configs/reference.toml list its keys
    #[arg(value_name = "CONFIG")]
    pub path: PathBuf,
    /// Change a key of the file: --set train.batch_size=8 (repeatable)
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazytune train configs/quickstart.toml
  lazytune train run.toml --set adapter.r=16 --max-steps 100
  lazytune train run.toml --resume                     continue from the latest checkpoint
  lazytune train run.toml --resume runs/run/checkpoint-50

  lazytune train run.toml --detach                     in the background; look at it with lazytune watch

On a terminal it opens a dashboard, which stays open at the end until it is closed. Ctrl-C finishes the
step, saves and exits with code 130; a second Ctrl-C exits at once.")]
pub struct TrainArguments {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Where checkpoints, metrics and the result go; default: train.output_dir
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Continue a run: from this checkpoint, or from the latest one in the run directory
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1)]
    pub resume: Option<Option<PathBuf>>,
    /// Stop after this many optimizer steps, whatever the file says
    #[arg(long, value_name = "N")]
    pub max_steps: Option<usize>,
    /// Print lines instead of opening the dashboard
    #[arg(long)]
    pub plain: bool,
    /// Start the run in the background and return
    #[arg(long)]
    pub detach: bool,
    /// Set for the process that --detach starts
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub detached: bool,
    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct WatchArguments {
    /// A run's folder, for example runs/quickstart
    #[arg(value_name = "RUN_DIR")]
    pub run_dir: PathBuf,
    /// Print lines instead of opening the dashboard
    #[arg(long)]
    pub plain: bool,
    /// Print the dashboard as it is now, or was at the end, as an SVG picture
    #[arg(long, value_name = "COLUMNSxROWS", num_args = 0..=1, default_missing_value = "120x40",
          value_parser = picture_size, conflicts_with = "plain")]
    pub picture: Option<(u16, u16)>,
}

/// `120x40`: at most 500 cells each way.
fn picture_size(text: &str) -> Result<(u16, u16), String> {
    let (columns, rows) = text.split_once('x').ok_or("expected COLUMNSxROWS, like 120x40")?;
    let cells = |text: &str| text.parse().ok().filter(|cells| (1..=500).contains(cells));
    let size = cells(columns).zip(cells(rows));
    size.ok_or_else(|| "columns and rows are numbers from 1 to 500".to_owned())
}

#[derive(Debug, Args)]
pub struct RunsArguments {
    /// The folder that holds runs' folders, or a run's
    #[arg(value_name = "DIR", default_value = "runs")]
    pub folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CompareArguments {
    /// A run's folder
    #[arg(value_name = "RUN_DIR")]
    pub first: PathBuf,
    /// Another one's
    #[arg(value_name = "RUN_DIR")]
    pub second: PathBuf,
    /// Print a table instead of charts
    #[arg(long)]
    pub plain: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazytune data run.toml
  lazytune data run.toml --rows 20 --plain | less
  lazytune data run.toml --json --set data.max_length=1024

Files are read once, as a stream, whatever their size. Only the model's tokenizer is needed.")]
pub struct DataArguments {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Put trained tokens in [brackets] instead of colors
    #[arg(long)]
    pub plain: bool,
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rows: usize,
    /// Print JSON
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Tokens per row; default: data.max_length
    #[arg(long, value_name = "TOKENS")]
    pub sequence: Option<usize>,
    /// Plan for this device, which need not be there; default: model.device, and the CPU where that is "auto"
    #[arg(long, value_name = "DEVICE", value_parser = ["cpu", "metal", "cuda"])]
    pub device: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazytune bench configs/quickstart.toml --set data.packing=true
  lazytune bench run.toml --sequence 512 --set train.batch_size=4 --json

Steps are those of a training run, on its data; nothing is written.")]
pub struct BenchArguments {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Steps to time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,
    /// Steps before them, not timed
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub warmup: u32,
    /// Tokens per row, as --set data.max_length=TOKENS
    #[arg(long, value_name = "TOKENS")]
    pub sequence: Option<usize>,
    /// Threads that compute, as --set model.threads=N
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Tell operations of the same kind and different shapes apart
    #[arg(long)]
    pub shapes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazytune selftest
  lazytune selftest --device cpu --quick

What it prints is a report to paste into an issue. The exit code is 1 if an operation's results are wrong.")]
pub struct SelftestArguments {
    /// Device to test; auto takes Metal or CUDA where this build has it and finds one
    #[arg(long, value_enum, default_value_t = TestedDevice::Auto)]
    pub device: TestedDevice,
    /// Only small shapes, and no timing: seconds instead of a minute or more
    #[arg(long)]
    pub quick: bool,
    /// Threads of the CPU; default: all cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestedDevice {
    Auto,
    Cpu,
    Metal,
    Cuda,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    pub config: ConfigFile,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazytune generate --model HuggingFaceTB/SmolLM2-135M-Instruct --prompt 'Define love'
  lazytune generate --model model.gguf --adapter runs/run/adapter --prompt 'Define love' --compare")]
pub struct GenerateArguments {
    /// A Hugging Face folder, a .gguf file, or a name on the hub
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// A PEFT adapter folder
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// What the user says; the model's chat template is applied
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: String,
    /// What the system message says
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// 0 always takes the likeliest token; higher values are more varied
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Sample from the likeliest tokens whose probabilities add up to this
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Random seed for sampling
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Threads that compute; default: all cores
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print what the model says without the adapter, and with it
    #[arg(long, requires = "adapter")]
    pub compare: bool,
}

#[derive(Debug, Args)]
pub struct MergeArguments {
    /// A Hugging Face folder, a .gguf file, or a name on the hub
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// A PEFT adapter folder
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder to write; it must not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct ModelsArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct InspectArguments {
    /// A Hugging Face folder, a .gguf file or a PEFT adapter folder
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a JSON schema of the configuration file, for editors
    Schema,
    /// Print a configuration with every default filled in
    Show(ConfigFile),
}
