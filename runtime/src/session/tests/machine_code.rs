//! Machine code of the program itself: loaded, called, and given what the convention says.

#![cfg(all(unix, target_arch = "x86_64"))]

use super::*;

/// A function that copies the 64-bit words `lo..hi` of the array at word 0 to the one at word 1, adding the outer
/// iteration and word 2.
const COPY: [u8; 47] = [
    0x4C, 0x8B, 0x16, // mov r10, [rsi]
    0x4C, 0x8B, 0x5E, 0x08, // mov r11, [rsi+8]
    0x48, 0x8B, 0x46, 0x10, // mov rax, [rsi+16]
    0x48, 0x03, 0x47, 0x08, // add rax, [rdi+8]
    0x48, 0x89, 0xC2, // mov rdx, rax
    0xEB, 0x0F, // jmp test
    // body:
    0x49, 0x8B, 0x04, 0xCA, // mov rax, [r10+rcx*8]
    0x48, 0x01, 0xD0, // add rax, rdx
    0x49, 0x89, 0x04, 0xCB, // mov [r11+rcx*8], rax
    0x48, 0xFF, 0xC1, // inc rcx
    0x90, // nop
    // test:
    0x4C, 0x39, 0xC1, // cmp rcx, r8
    0x72, 0xEC, // jb body
    0x31, 0xC0, // xor eax, eax
    0xC3, // ret
    0x90, 0x90, 0x90, 0x90,
];

#[test]
fn machine_code_runs() {
    assert_eq!(std::mem::offset_of!(crate::program::Context, counters), 8);
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let program = &mut builder.program;
    program.code = vec![0xCC; 64];
    program.code.extend(COPY);
    program.functions = vec![Function::Generated { offset: 64, length: COPY.len() as u32 }];
    for port in program.inputs.iter_mut().chain(&mut program.outputs) {
        port.element = ElementType::I64;
    }
    program.buffers.iter_mut().for_each(|buffer| buffer.bytes = n() * Size::from(8));
    let step = Step::Kernel(KernelStep {
        function: 0,
        arguments: vec![at(x), at(y), Argument::Size(n())],
        grid: n(),
        scratch: Size::ZERO,
        cost: Cost::default(),
        label: "copy".into(),
        kind: "test".into(),
    });
    program.body = vec![Step::Repeat { count: Size::from(3), condition: None, body: vec![step] }];
    let executable = builder.load();
    let input: Vec<i64> = (0..1000).collect();
    let outputs = run_everywhere(&executable, &[Tensor::from_slice(&[1000], &input).unwrap()]);
    let expected: Vec<i64> = (0..1000).map(|value| value + 1000 + 2).collect();
    assert_eq!(outputs[0].as_slice::<i64>().unwrap(), expected);
    let session = executable.session(&sizes(10), &SessionOptions::default()).unwrap();
    assert_eq!(session.memory_use().code, 64 + COPY.len() as u64);
}
