//! What a program without the standard library needs to say for itself. With it, half of the module would be text for panics that nobody reads: what is told of a trap
//! is where in the module it happened.

use core::panic::PanicInfo;

use dlmalloc::GlobalDlmalloc;

/// The standard library's on this target, too.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

#[panic_handler]
fn trap(_: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
