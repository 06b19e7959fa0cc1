/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers for x86-64 and AArch64 by hand, elsewhere by ucontext. Compiled without TSan even for
 * programs under TSan, which only hear of the switches.
 */
#include "tests/emu/fiber.h"
#include "tests/emu/sanitizers.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef RA_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef RA_EMU_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read16(void *p);
extern "C" void __tsan_write16(void *p);
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

enum { STACK_BYTES = 256 * 1024 };

#if defined(__x86_64__) || defined(__aarch64__)

extern "C" void ra_fiber_jump(void **save, void *load);

#ifdef __x86_64__
__asm__(".text\n"
        ".p2align 4\n"
        ".type ra_fiber_jump, @function\n"
        "ra_fiber_jump:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size ra_fiber_jump, . - ra_fiber_jump\n");
/* Six registers, the address to return to, and one word so that the stack is aligned there. */
enum { FRAME_WORDS = 8, RETURN_WORD = 6 };
#else
__asm__(".text\n"
        ".p2align 4\n"
        ".type ra_fiber_jump, %function\n"
        "ra_fiber_jump:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x2, sp\n"
        "    str x2, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size ra_fiber_jump, . - ra_fiber_jump\n");
enum { FRAME_WORDS = 20, RETURN_WORD = 11 };
#endif

static void prepare(struct ra_fiber *fiber, void (*entry)())
{
    uintptr_t *frame = reinterpret_cast<uintptr_t *>(fiber->stack + fiber->size) - FRAME_WORDS;
    memset(frame, 0, FRAME_WORDS * sizeof *frame);
    frame[RETURN_WORD] = reinterpret_cast<uintptr_t>(entry);
    fiber->sp = frame;
}

static void adopt(struct ra_fiber *)
{
}

#else
#include <ucontext.h>

static void ra_fiber_jump(void **save, void *load)
{
    swapcontext(static_cast<ucontext_t *>(*save), static_cast<ucontext_t *>(load));
}

static void adopt(struct ra_fiber *fiber)
{
    static ucontext_t here; /* of the one thread that holds the lock */
    fiber->sp = &here;
}

static void prepare(struct ra_fiber *fiber, void (*entry)())
{
    ucontext_t *context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = fiber->stack;
    context->uc_stack.ss_size = fiber->size;
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    fiber->sp = context;
}
#endif

static struct ra_fiber *from_fiber, *to_fiber;

/* On the stack that was switched to. */
static void arrive()
{
#ifdef RA_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(to_fiber->fake, &bottom, &size);
    /* The stack that was left tells where it lies: the thread's own can be learnt only so. */
    from_fiber->stack = static_cast<char *>(const_cast<void *>(bottom));
    from_fiber->size = size;
#endif
}

static void begin()
{
    arrive();
    to_fiber->entry();
    abort();
}

void ra_fiber_open(struct ra_fiber *fiber, void (*entry)())
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *map = mmap(NULL, STACK_BYTES + page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE)) {
        perror("emu: no memory for a stack");
        abort();
    }
    *fiber = {};
    fiber->stack = static_cast<char *>(map) + page;
    fiber->size = STACK_BYTES;
    fiber->entry = entry;
    prepare(fiber, begin);
#ifdef RA_EMU_TSAN
    fiber->tsan = __tsan_create_fiber(0);
#endif
}

void ra_fiber_adopt(struct ra_fiber *fiber)
{
    *fiber = {};
    adopt(fiber);
#ifdef RA_EMU_TSAN
    fiber->tsan = __tsan_get_current_fiber();
#endif
}

void ra_fiber_switch(struct ra_fiber *from, struct ra_fiber *to)
{
    from_fiber = from;
    to_fiber = to;
#ifdef RA_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->size);
#endif
#ifdef RA_EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    ra_fiber_jump(&from->sp, to->sp);
    arrive();
}

void ra_fiber_acquire(void *x)
{
    (void)x;
#ifdef RA_EMU_TSAN
    __tsan_acquire(x);
#endif
}

void ra_fiber_release(void *x)
{
    (void)x;
#ifdef RA_EMU_TSAN
    __tsan_release(x);
#endif
}

void ra_fiber_read16(const void *p)
{
    (void)p;
#ifdef RA_EMU_TSAN
    __tsan_read16(const_cast<void *>(p));
#endif
}

void ra_fiber_write16(void *p)
{
    (void)p;
#ifdef RA_EMU_TSAN
    __tsan_write16(p);
#endif
}

ra_fiber_unwatched::ra_fiber_unwatched()
{
#ifdef RA_EMU_TSAN
    __tsan_ignore_thread_begin();
#endif
}

ra_fiber_unwatched::~ra_fiber_unwatched()
{
#ifdef RA_EMU_TSAN
    __tsan_ignore_thread_end();
#endif
}
