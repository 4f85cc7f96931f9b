//! Plugin files that attack the compiler, made byte by byte: for the self-check of a node's limits and
//! for tests.

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Section ids of the two binary formats.
const CORE_MODULE: u8 = 1;
const NESTED_COMPONENT: u8 = 4;
const INSTANCES: u8 = 5;
const COMPONENT_TYPES: u8 = 7;
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;

/// What a type is nested in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nesting {
    /// Instances that are made of instances.
    Instances,
    /// Components that contain components.
    Components,
}

/// A component that declares a type within a type, `depth` deep: some bytes a level, and more than
/// a recursive parser has stack for.
pub fn nested_types(nesting: Nesting, depth: usize) -> Vec<u8> {
    let kind = match nesting {
        Nesting::Instances => 0x42,
        Nesting::Components => 0x41,
    };
    let mut inner = vec![kind, 0];
    for _ in 1..depth {
        inner.insert(0, 1);
        inner = [vec![kind], vector(&[inner])].concat();
    }
    [COMPONENT, &section(COMPONENT_TYPES, &vector(&[inner]))].concat()
}

/// A component that instantiates a component twice, which does the same, and so on for `levels`: each
/// level doubles the memory.
pub fn doubling(levels: usize) -> Vec<u8> {
    let mut inner = COMPONENT.to_vec();
    let twice = vector(&[vec![0, 0, 0], vec![0, 0, 0]]);
    for _ in 0..levels {
        let nested = section(NESTED_COMPONENT, &inner);
        inner = [COMPONENT, &nested, &section(INSTANCES, &twice)].concat();
    }
    inner
}

/// A component with a function of nested loops over many variables: a small file whose compilation
/// never ends.
pub fn endless() -> Vec<u8> {
    const LOOPS: usize = 2000;
    const VARIABLES: usize = 60;
    let mut body = vector(&[[leb(VARIABLES), vec![0x7f]].concat()]);
    body.extend(b"\x03\x40".repeat(LOOPS));
    for variable in 0..VARIABLES {
        let variable = leb(variable);
        body.extend([b"\x20", &variable[..], b"\x41\x01\x6a\x21", &variable[..]].concat());
    }
    body.extend(b"\x41\x00\x0d\x00\x0b".repeat(LOOPS));
    body.push(0x0b);
    let code = vector(&[[leb(body.len()), body].concat()]);
    let module = [
        MODULE,
        &section(TYPES, &vector(&[vec![0x60, 0, 0]])),
        &section(FUNCTIONS, &vector(&[vec![0]])),
        &section(CODE, &code),
    ];
    [COMPONENT, &section(CORE_MODULE, &module.concat())].concat()
}

fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], &leb(content.len())[..], content].concat()
}

fn vector(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(items.len()), items.concat()].concat()
}

/// `number` in WebAssembly's encoding, LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
