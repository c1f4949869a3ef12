//! What the kernels' source declares, read from its text.

use std::sync::LazyLock;

use regex::Regex;

use lazytune::kernels::metal::SOURCES;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// A pointer or reference to memory of the device.
    Buffer { space: String, constant: bool, element: String, pointer: bool, name: String, index: usize },
    /// A number that Metal gives each thread.
    Attribute { kind: String, name: String, attribute: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSource {
    pub name: String,
    pub parameters: Vec<Parameter>,
}

impl KernelSource {
    fn binds(&self, name: &str) -> bool {
        self.parameters
            .iter()
            .any(|parameter| matches!(parameter, Parameter::Buffer { element, .. } if element == name))
    }
}

/// Names and types of fields.
pub type Fields = Vec<(String, String)>;

#[derive(Debug, Default)]
pub struct Declarations {
    pub kernels: Vec<KernelSource>,
    pub structs: Vec<(String, Fields)>,
    /// (name, type, index)
    pub constants: Vec<(String, String, usize)>,
    /// Places ("file:line") of all barriers.
    pub barriers: Vec<String>,
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

static BUFFER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(device|constant|threadgroup) (const )?(\w+)([*&]) (\w+) \[\[buffer\((\d+)\)\]\]$")
});
static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\w+) (\w+) \[\[(\w+)\]\]$"));

fn parameter(text: &str) -> Parameter {
    if let Some(found) = BUFFER.captures(text) {
        return Parameter::Buffer {
            space: found[1].to_owned(),
            constant: found.get(2).is_some(),
            element: found[3].to_owned(),
            pointer: &found[4] == "*",
            name: found[5].to_owned(),
            index: found[6].parse().unwrap(),
        };
    }
    let found = ATTRIBUTE.captures(text).unwrap_or_else(|| panic!("cannot read the parameter {text:?}"));
    Parameter::Attribute {
        kind: found[1].to_owned(),
        name: found[2].to_owned(),
        attribute: found[3].to_owned(),
    }
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap().trim_end()).collect::<Vec<_>>().join("\n")
}

fn read_file(name: &str, text: &str, all: &mut Declarations) {
    let text = without_comments(text);
    for found in pattern(r"kernel void (\w+)\(([^{]*?)\) \{").captures_iter(&text) {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parameters = found[2].split(",\n").map(|text| parameter(&words(text))).collect();
        all.kernels.push(KernelSource { name: found[1].to_owned(), parameters });
    }
    for found in pattern(r"struct (\w+) \{([^}]*)\};").captures_iter(&text) {
        let fields = found[2].split(';').filter_map(|field| {
            let (kind, name) = field.trim().split_once(' ')?;
            Some((name.to_owned(), kind.to_owned()))
        });
        all.structs.push((found[1].to_owned(), fields.collect()));
    }
    let constants = pattern(r"constant (\w+) (\w+) \[\[function_constant\((\d+)\)\]\];");
    for found in constants.captures_iter(&text) {
        all.constants.push((found[2].to_owned(), found[1].to_owned(), found[3].parse().unwrap()));
    }
    for (index, line) in text.lines().enumerate() {
        let barriers = line.matches("_barrier(").count();
        assert!(barriers <= 1, "{name}:{}: one barrier a line, so that tests can take it out", index + 1);
        if barriers == 1 {
            all.barriers.push(format!("{name}:{}", index + 1));
        }
    }
}

pub fn declarations() -> Declarations {
    let mut all = Declarations::default();
    SOURCES.iter().for_each(|(name, text)| read_file(name, text, &mut all));
    all
}

/// The tables that `shim/runner.h` wants: how to call each kernel with bound buffers, and where the constants are.
pub fn glue(all: &Declarations) -> String {
    let mut text = String::new();
    let mut table = String::from("static const shim::Kernel kernels[] = {\n");
    for kernel in &all.kernels {
        let arguments: Vec<String> = kernel.parameters.iter().map(argument).collect();
        let name = &kernel.name;
        text += &format!("static void launch_{name}(void** b, const shim::Where& w) {{\n    (void)w;\n");
        text += &format!("    {name}({});\n}}\n", arguments.join(", "));
        let access: String = kernel.parameters.iter().filter_map(access).collect();
        table += &format!("    {{\"{name}\", launch_{name}, \"{access}\"}},\n");
    }
    let mut constants = String::from("static const shim::Constant constants[] = {\n");
    for (name, _, index) in &all.constants {
        constants += &format!("    {{{index}, &{name}, sizeof({name})}},\n");
    }
    let bound = |name: &String| all.kernels.iter().any(|kernel| kernel.binds(name));
    for (name, fields) in all.structs.iter().filter(|(name, _)| bound(name)) {
        text += &format!("static_assert(sizeof({name}) == {}, \"\");\n", packed_bytes(fields));
    }
    text + &table + "};\n" + &constants + "};\n"
}

/// Size without padding: a struct that both sides declare should have none.
pub fn packed_bytes(fields: &Fields) -> usize {
    fields.iter().map(|(_, kind)| if kind == "ulong" { 8 } else { 4 }).sum()
}

fn argument(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Buffer { constant, element, pointer, index, .. } => {
            let qualifier = if *constant { "const " } else { "" };
            let dereferenced = if *pointer { "" } else { "*" };
            format!("{dereferenced}({qualifier}{element}*)b[{index}]")
        }
        Parameter::Attribute { attribute, .. } => match attribute.as_str() {
            "thread_position_in_grid" => "w.in_grid()".into(),
            "thread_position_in_threadgroup" => "w.local".into(),
            "thread_index_in_threadgroup" => "w.index()".into(),
            "threadgroup_position_in_grid" => "w.group".into(),
            "threadgroups_per_grid" => "w.groups".into(),
            "threads_per_threadgroup" => "w.threads".into(),
            other => panic!("the shim has no attribute {other}"),
        },
    }
}

fn access(parameter: &Parameter) -> Option<char> {
    match parameter {
        Parameter::Buffer { space, constant, .. } => {
            Some(if *constant || space == "constant" { 'r' } else { 'w' })
        }
        Parameter::Attribute { .. } => None,
    }
}
