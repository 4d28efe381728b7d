//! The stack of every chain of calls, as kernels before 6.13 add it up: each function's, in steps of 32 bytes; 512 for all
//! together (`MAX_BPF_STACK`; `check_max_stack_depth` in kernel/bpf/verifier.c). Newer kernels count in steps of 16, so
//! what is one byte too much loads on the machine of its author.

use std::collections::{BTreeMap, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

/// What a chain of calls may have.
const MOST: u32 = 512;
/// What a function has is rounded up to a multiple of this.
const STEP: u32 = 32;
/// The register that points to the end of a function's stack.
const FRAME: u8 = 10;

/// A class of instruction: the low bits of its code (RFC 9669, section 3).
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
/// `rX = rY`, 64 bits.
const MOVE: u8 = 0xbf;
/// `rX += immediate`, 64 bits.
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
/// In the source register of [`CALL`]: a function of the program (`BPF_PSEUDO_CALL`).
const PROGRAM_LOCAL: u8 = 1;

/// A function of a program.
#[derive(Default)]
struct Function {
    /// Bytes of stack.
    stack: u32,
    /// Where the functions begin that it calls.
    calls: HashSet<usize>,
}

/// The functions of a linked program, by where they begin.
fn functions(program: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let mut starts: Vec<usize> = std::iter::once(0)
        .chain((0..program.len()).filter_map(|at| callee(program, at)))
        .collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([program.len()]);
    let bodies = starts.iter().copied().zip(ends);
    bodies
        .map(|(start, end)| (start, function(program, start..end)))
        .collect()
}

/// Where the function begins that the instruction calls.
fn callee(program: &[bpf_insn], at: usize) -> Option<usize> {
    let instruction = program.get(at)?;
    let calls = instruction.code == CALL && instruction.src_reg() == PROGRAM_LOCAL;
    calls.then(|| at.checked_add_signed(instruction.imm as isize + 1))?
}

/// What the instructions in a range reach of the stack: directly, or by a copy of the register that something is taken off.
fn function(program: &[bpf_insn], range: std::ops::Range<usize>) -> Function {
    let mut function = Function::default();
    let mut copies: HashSet<u8> = HashSet::new();
    for at in range {
        let instruction = &program[at];
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let reached = match instruction.code {
            MOVE if from == FRAME => {
                copies.insert(to);
                0
            }
            ADD if copies.contains(&to) => instruction.imm,
            code => match code & CLASS {
                LDX if from == FRAME => instruction.off.into(),
                ST | STX if to == FRAME => instruction.off.into(),
                _ => 0,
            },
        };
        let copied = instruction.code == MOVE && from == FRAME;
        // Stores write memory; all others write the register, which is then no copy any more.
        if !copied && !matches!(instruction.code & CLASS, ST | STX) {
            copies.remove(&to);
        }
        function.stack = function.stack.max(reached.min(0).unsigned_abs());
        function.calls.extend(callee(program, at));
    }
    function
}

/// The chain of calls from a function that takes most: what each function in it has, in [`STEP`]s.
fn deepest(functions: &BTreeMap<usize, Function>, from: usize) -> Vec<u32> {
    let Some(function) = functions.get(&from) else {
        return Vec::new();
    };
    // Every function has one step at least; BPF has no recursion.
    let own = function.stack.max(1).next_multiple_of(STEP);
    let chains = function
        .calls
        .iter()
        .map(|&callee| deepest(functions, callee));
    let below = chains.max_by_key(|chain| chain.iter().sum::<u32>());
    std::iter::once(own)
        .chain(below.unwrap_or_default())
        .collect()
}

/// The deepest chain of each program of an object.
fn chains(object: &[u8]) -> Vec<(String, Vec<u32>)> {
    let mut object = Object::parse(object).expect("an object that parses");
    let sections = object.functions.keys().map(|(section, _)| *section);
    let sections = sections.collect();
    object
        .relocate_calls(&sections)
        .expect("calls that resolve");
    let programs = object.programs.iter().map(|(name, program)| {
        let linked = &object.functions[&program.function_key()].instructions;
        (name.clone(), deepest(&functions(linked), 0))
    });
    programs.collect()
}

#[test]
fn the_stack_of_every_chain_of_calls_is_what_old_kernels_allow() {
    for object in [super::bytes(), super::watch()] {
        let chains = chains(object.expect("BPF objects: `cargo xtask build` makes them"));
        assert!(!chains.is_empty(), "an object without programs");
        for (program, chain) in chains {
            let sum: u32 = chain.iter().sum();
            eprintln!("{program}: {sum} bytes, {chain:?}");
            assert!(
                sum <= MOST,
                "{program}: {sum} bytes of stack in a chain of calls ({chain:?}), where kernels before 6.13 allow {MOST}"
            );
        }
    }
}

#[test]
fn stack_is_found_where_it_is_used() {
    // r1 = r10; r1 += -40; *(u64 *)(r10 - 8) = r1; call +1; exit; r0 = *(u64 *)(r10 - 72); exit
    let instruction = |code: u8, to: u8, from: u8, off: i16, imm: i32| {
        let mut instruction = bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: aya_obj::generated::__BindgenBitfieldUnit::new([0]),
            off,
            imm,
        };
        instruction.set_dst_reg(to);
        instruction.set_src_reg(from);
        instruction
    };
    let program = [
        instruction(MOVE, 1, FRAME, 0, 0),
        instruction(ADD, 1, 0, 0, -40),
        instruction(0x7b, FRAME, 1, -8, 0),
        instruction(CALL, 0, PROGRAM_LOCAL, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
        instruction(0x79, 0, FRAME, -72, 0),
        instruction(0x95, 0, 0, 0, 0),
    ];
    assert_eq!(deepest(&functions(&program), 0), [64, 96]);
}
