//! Compiles the kernels' source as C++ into programs that run one launch each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};

use lazytune::kernels::metal::{Element, library_source};

use crate::source::{declarations, glue};

/// The folder of the shim's headers.
fn shim() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metal/shim")
}

/// The first compiler that answers.
fn compiler() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let named = std::env::var("CXX").ok();
        let names = named.into_iter().chain(["c++", "g++", "clang++"].map(String::from));
        let answers = |name: &String| Command::new(name).arg("--version").output().is_ok();
        names.into_iter().find(answers)
    });
    found.as_deref()
}

/// Whether kernels can be run; says so where they cannot.
pub fn can_compile() -> bool {
    let can = compiler().is_some();
    if !can {
        println!("skipped: no C++ compiler to compile the Metal kernels with (CXX names one)");
    }
    can
}

fn compile(compiler: &str, arguments: &[&str], source: &Path) -> Output {
    let mut command = Command::new(compiler);
    // Distributions that fortify by default refuse jumps between stacks.
    command.args(["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-Werror", "-Wno-attributes"]);
    command.args(["-Wno-unknown-attributes", "-Wno-unused-function", "-x", "c++"]);
    command.args(["-I".as_ref(), shim().as_os_str(), source.as_os_str()]).args(arguments);
    command.output().unwrap()
}

/// The program for one type of activations and one width of heads, compiled once for as long as nothing changes.
pub fn program(element: Element, head_dim: usize) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<(Element, usize), PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let programs = built.get_or_insert_default();
    programs.entry((element, head_dim)).or_insert_with(|| build(element, head_dim)).clone()
}

fn build(element: Element, head_dim: usize) -> PathBuf {
    let compiler = compiler().unwrap();
    let library = library_source(element, head_dim);
    let main = "#line 1 \"glue\"\n#include \"runner.h\"\n";
    let run = "int main() { return shim::run(kernels, constants); }\n";
    let text = format!("{library}{main}{}{run}", glue(&declarations()));
    let mut hash = blake3::Hasher::new();
    hash.update(text.as_bytes()).update(compiler.as_bytes());
    for header in ["fibers.h", "metal_stdlib", "metal_simdgroup_matrix", "runner.h"] {
        hash.update(&std::fs::read(shim().join(header)).unwrap());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("metal-{}-{head_dim}-{}", element.metal_name(), hash.finalize().to_hex());
    let program = folder.join(&name);
    if !program.exists() {
        let source = folder.join(format!("{name}.cc"));
        let partial = folder.join(format!("{name}.{}", std::process::id()));
        std::fs::write(&source, text).unwrap();
        let output = compile(compiler, &["-o", partial.to_str().unwrap()], &source);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(partial, &program).unwrap();
    }
    program
}

/// Address spaces are types to clang only.
#[test]
fn address_spaces_fit() {
    let clang = std::env::var("CLANGXX").unwrap_or_else(|_| "clang++".into());
    if Command::new(&clang).arg("--version").output().is_err() {
        println!("skipped: no {clang}, which alone can check address spaces (CLANGXX names another)");
        return;
    }
    let check = |text: &str, name: &str| {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&source, text).unwrap();
        compile(&clang, &["-fsyntax-only", "-DSHIM_CHECK_ADDRESS_SPACES"], &source)
    };
    let library = library_source(Element::F32, 64);
    let output = check(&library, "address_spaces.cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (right, wrong) in
        [("threadgroup float* partial", "float* partial"), ("inverse_rms(device const", "inverse_rms(const")]
    {
        let mutant = library.replacen(right, wrong, 1);
        assert!(mutant != library && !check(&mutant, "wrong_space.cc").status.success(), "{wrong} passes");
    }
}
