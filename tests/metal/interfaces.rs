//! The host's table against the source.

use std::collections::BTreeSet;

use lazytune::kernels::metal::{Access, FUNCTION_CONSTANTS, INTERFACES, Kind};

use crate::source::{Declarations, KernelSource, Parameter, declarations, packed_bytes};

fn expected(access: Access, kind: Kind) -> (&'static str, bool, &'static str, bool) {
    let element = match kind {
        Kind::Activation => "ELEMENT",
        Kind::F32 => "float",
        Kind::U32 => "uint",
        Kind::U8 => "uchar",
        Kind::Spec(name, ..) => name,
    };
    match access {
        Access::Read => ("device", true, element, true),
        Access::Write => ("device", false, element, true),
        Access::Constant(count) => ("constant", false, element, count > 1),
    }
}

fn check_struct(all: &Declarations, name: &str, bytes: usize, fields: &[(&str, &str)]) {
    let found = all.structs.iter().find(|(found, _)| found == name);
    let (_, found) = found.unwrap_or_else(|| panic!("the source has no struct {name}"));
    let found_names: Vec<(&str, &str)> =
        found.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    assert_eq!(found_names, fields, "fields of {name}");
    assert_eq!(packed_bytes(found), bytes, "size of {name}");
}

fn check_kernel(all: &Declarations, kernel: &KernelSource) {
    let interface = INTERFACES.iter().find(|interface| interface.kernel == kernel.name);
    let bindings = interface.unwrap_or_else(|| panic!("the host does not know {}", kernel.name)).bindings;
    let mut count = 0;
    for parameter in &kernel.parameters {
        let Parameter::Buffer { space, constant, element, pointer, name, index } = parameter else {
            continue;
        };
        let binding = bindings.get(*index).unwrap_or_else(|| panic!("{} binds no {name}", kernel.name));
        let found = (space.as_str(), *constant, element.as_str(), *pointer);
        assert_eq!(found, expected(binding.access, binding.kind), "{name} of {}", kernel.name);
        assert_eq!(name, binding.name, "buffer {index} of {}", kernel.name);
        if let Kind::Spec(name, bytes, fields) = binding.kind {
            check_struct(all, name, bytes, fields);
        }
        count += 1;
    }
    assert_eq!(count, bindings.len(), "{} has other buffers than the host binds", kernel.name);
}

#[test]
fn the_hosts_table_is_that_of_the_source() {
    let all = declarations();
    all.kernels.iter().for_each(|kernel| check_kernel(&all, kernel));
    assert_eq!(all.kernels.len(), INTERFACES.len());
    let constants: Vec<_> =
        all.constants.iter().map(|(name, kind, index)| (*index, (name.as_str(), kind.as_str()))).collect();
    let known: Vec<_> = FUNCTION_CONSTANTS.iter().copied().enumerate().collect();
    assert_eq!(constants, known);
}

/// Metal wants one width for all positions that a kernel takes, and up to 31 buffers.
#[test]
fn positions_of_a_kernel_have_one_width() {
    for kernel in declarations().kernels {
        let mut widths = BTreeSet::new();
        for parameter in &kernel.parameters {
            match parameter {
                Parameter::Attribute { kind, attribute, .. } if attribute.contains("_index_in_") => {
                    assert_eq!(kind, "uint", "{attribute} of {}", kernel.name);
                }
                Parameter::Attribute { kind, .. } => {
                    widths.insert(kind.clone());
                }
                Parameter::Buffer { index, .. } => assert!(*index < 31),
            }
        }
        assert!(widths.len() <= 1, "{} takes positions of {widths:?}", kernel.name);
    }
}
