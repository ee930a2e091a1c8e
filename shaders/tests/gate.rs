//! The shader gate: every permutation that may ever be compiled goes through naga, without a GPU: parse, validate, fix the overrides, write SPIR-V.
//! It also holds the conventions that the runtime reads out of the text.

use std::collections::HashSet;

use elgen_shaders::{Permutation, Requirement, SHADERS, expand, permutations};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess};

/// Bytes of parameters and of workgroup memory, and invocations, that every WebGPU device has.
const PARAM_BYTES: u32 = 64;
const WORKGROUP_BYTES: u32 = 16 << 10;
const INVOCATIONS: u32 = 256;

fn validate(module: &Module) -> Result<ModuleInfo, String> {
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(module)
        .map_err(|e| format!("{e:?}"))
}

fn lower(permutation: &Permutation) -> Result<(), String> {
    let source = expand(permutation.shader, &permutation.symbols).map_err(|e| e.to_string())?;
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
    let info = validate(&module)?;
    let [entry] = &module.entry_points[..] else { return Err(format!("{} entry points", module.entry_points.len())) };
    if entry.name != "main" || entry.stage != ShaderStage::Compute {
        return Err(format!("the entry point is {:?} {}", entry.stage, entry.name));
    }
    bindings(&module, &info, &source)?;
    if module.overrides.iter().any(|(_, o)| o.init.is_none()) {
        return Err("an override has no default".into());
    }
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, None, &Default::default())
        .map_err(|e| e.to_string())?;
    sizes(&module)?;
    let pipeline = naga::back::spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    let words = naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), Some(&pipeline));
    words.map(|_| ()).map_err(|e| e.to_string())
}

/// Group 0 holds storage buffers only, numbered in the order of the text, each declared on a line of its own that begins with `@group(0)`;
/// what is not written is bound `read`, so that no barrier is ever made for it.
fn bindings(module: &Module, info: &ModuleInfo, source: &str) -> Result<(), String> {
    let mut storage = 0;
    let mut parameters = 0;
    for (handle, variable) in module.global_variables.iter() {
        let name = variable.name.as_deref().unwrap_or("?");
        let used = info.get_entry_point(0)[handle];
        match (variable.space, variable.binding) {
            (AddressSpace::Storage { access }, Some(place)) => {
                if place.group != 0 || place.binding != storage {
                    return Err(format!("{name} is bound at {}.{}, expected 0.{storage}", place.group, place.binding));
                }
                if !access.contains(StorageAccess::LOAD) || used.is_empty() {
                    return Err(format!("{name} is not used, or bound for writing only"));
                }
                if access.contains(StorageAccess::STORE) != used.contains(GlobalUse::WRITE) {
                    return Err(format!("{name} is bound with {access:?} but used with {used:?}"));
                }
                storage += 1;
            }
            (AddressSpace::Immediate, None) => parameters += 1,
            (AddressSpace::Uniform, Some(place)) if (place.group, place.binding) == (1, 0) => parameters += 1,
            (AddressSpace::WorkGroup | AddressSpace::Private, None) => {}
            (space, place) => return Err(format!("{name}: unexpected {space:?} at {place:?}")),
        }
    }
    let lines: Vec<_> = source.lines().filter(|l| l.trim_start().starts_with("@group(0)")).collect();
    let ordered =
        lines.iter().enumerate().all(|(i, l)| l.trim_start().starts_with(&format!("@group(0) @binding({i}) ")));
    if lines.len() != storage as usize || !ordered || parameters > 1 {
        return Err(format!("{storage} storage bindings on {} lines, {parameters} parameter blocks", lines.len()));
    }
    Ok(())
}

/// Default overrides fit a device with the least limits.
fn sizes(module: &Module) -> Result<(), String> {
    let mut layout = naga::proc::Layouter::default();
    layout.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let of = |space: fn(&AddressSpace) -> bool| -> u32 {
        module.global_variables.iter().filter(|(_, v)| space(&v.space)).map(|(_, v)| layout[v.ty].size).sum()
    };
    let workgroup = of(|s| matches!(s, AddressSpace::WorkGroup));
    let parameters = of(|s| matches!(s, AddressSpace::Immediate | AddressSpace::Uniform));
    let invocations: u32 = module.entry_points[0].workgroup_size.iter().product();
    if parameters > PARAM_BYTES || workgroup > WORKGROUP_BYTES || invocations > INVOCATIONS {
        return Err(format!(
            "{parameters} bytes of parameters, {workgroup} bytes of workgroup memory, {invocations} invocations"
        ));
    }
    Ok(())
}

#[test]
fn every_permutation_lowers_to_spirv() {
    let failures: Vec<String> = permutations()
        .iter()
        .filter_map(|p| lower(p).err().map(|e| format!("{} [{}]: {e}", p.shader, p.symbols.describe())))
        .collect();
    assert!(failures.is_empty(), "{} permutations fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_shader_is_listed_once_per_symbol_set() {
    let all = permutations();
    let mut seen = HashSet::new();
    for p in &all {
        assert!(SHADERS.iter().any(|(name, _)| *name == p.shader), "{} is no shader", p.shader);
        assert!(seen.insert((p.shader, p.symbols.clone())), "{} [{}] is listed twice", p.shader, p.symbols.describe());
    }
    for (name, _) in SHADERS {
        assert!(all.iter().any(|p| p.shader == *name), "{name} has no permutation");
    }
}

/// A permutation that a device without some feature may choose must not need it.
#[test]
fn requirements_match_the_text() {
    for p in permutations() {
        let source = expand(p.shader, &p.symbols).unwrap();
        let code: String = source.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
        let needs = [
            (Requirement::ShaderF16, code.contains("enable f16")),
            (Requirement::Subgroup, code.contains("subgroupAdd") || code.contains("@builtin(subgroup")),
            (Requirement::Immediates, code.contains("var<immediate>")),
            (Requirement::CooperativeMatrix, code.contains("enable wgpu_cooperative_matrix")),
        ];
        for (requirement, needed) in needs {
            // A requirement may be stated without being needed, never the other way round.
            assert!(
                !needed || p.requires.contains(&requirement),
                "{} [{}] needs {requirement:?}",
                p.shader,
                p.symbols.describe()
            );
        }
    }
}
