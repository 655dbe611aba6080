//! Writes programs that make one system call and end with its errno, or 0: no C compiler, no C library, no unsafe code.
use std::path::Path;

/// One system call of a 64-bit x86 program.
pub fn x86_64(path: &Path, number: u64, args: &[u64]) {
    const LOAD: [[u8; 2]; 6] = [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
    let mut code = vec![0x48, 0xb8]; // mov rax, number
    code.extend(number.to_le_bytes());
    for (register, arg) in LOAD.iter().zip(args) {
        code.extend(register); // mov rdi, rsi, rdx, r10, r8, r9
        code.extend(arg.to_le_bytes());
    }
    code.extend([0x0f, 0x05]); // syscall
    // test rax, rax; js +2; xor eax, eax; neg rax; mov rdi, rax; mov eax, 60 (exit); syscall
    code.extend([0x48, 0x85, 0xc0, 0x78, 0x02, 0x31, 0xc0, 0x48, 0xf7, 0xd8, 0x48, 0x89, 0xc7]);
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    let size = 64 + 56 + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64
    for word in [0x40_0078_u64, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, readable and executable
    for word in [0, 0x40_0000_u64, 0x40_0000, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    write(path, &elf);
}

/// One system call of a 32-bit x86 program.
pub fn x86(path: &Path, number: u32, args: [u32; 3]) {
    let mut code = Vec::new();
    for (register, value) in [(0xb8, number), (0xbb, args[0]), (0xb9, args[1]), (0xba, args[2])] {
        code.push(register); // mov eax, ebx, ecx, edx
        code.extend(value.to_le_bytes());
    }
    code.extend([0xcd, 0x80]); // int 0x80
    // test eax, eax; js +2; xor eax, eax; neg eax; mov ebx, eax; mov eax, 1 (exit); int 0x80
    code.extend([0x85, 0xc0, 0x78, 0x02, 0x31, 0xc0, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let size = 52 + 32 + code.len() as u32;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2, 0, 3, 0, 1, 0, 0, 0]); // ET_EXEC, EM_386
    for word in [0x0804_8054_u32, 52, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([52, 0, 32, 0, 1, 0, 40, 0, 0, 0, 0, 0]);
    for word in [1, 0, 0x0804_8000_u32, 0x0804_8000, size, size, 5, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    write(path, &elf);
}

/// A process that another test starts while a program is written would hold it open for writing, and then nobody can execute
/// it (ETXTBSY): writing and starting take turns.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let _alone = alone();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
