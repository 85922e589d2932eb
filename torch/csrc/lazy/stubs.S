// A stub for each function of names.inc, LAZY(name): it jumps to where its slot says,
// which is at first to what loads the libraries (lazy.c), the arguments being saved.

#if defined(__x86_64__)

#define LAZY(name)                                              \
  .section .data.nst_lazy, "aw"; .p2align 3; slot_##name: .quad first_##name; \
  .section .rodata; name_##name: .asciz #name;                  \
  .section .data.rel.ro.nst_lazy, "aw"; .quad slot_##name, name_##name; \
  .text; .globl name; .type name, @function;                    \
  name: jmp *slot_##name(%rip);                                 \
  first_##name: leaq slot_##name(%rip), %r11; jmp nst_lazy_first;

  .text
nst_lazy_first:
  pushq %rbp
  movq %rsp, %rbp
  subq $192, %rsp
  andq $-16, %rsp
  movq %rdi, 128(%rsp)
  movq %rsi, 136(%rsp)
  movq %rdx, 144(%rsp)
  movq %rcx, 152(%rsp)
  movq %r8, 160(%rsp)
  movq %r9, 168(%rsp)
  movq %rax, 176(%rsp)
  movups %xmm0, (%rsp)
  movups %xmm1, 16(%rsp)
  movups %xmm2, 32(%rsp)
  movups %xmm3, 48(%rsp)
  movups %xmm4, 64(%rsp)
  movups %xmm5, 80(%rsp)
  movups %xmm6, 96(%rsp)
  movups %xmm7, 112(%rsp)
  movq %r11, %rdi
  call nst_lazy_resolve
  movq %rax, %r11
  movups (%rsp), %xmm0
  movups 16(%rsp), %xmm1
  movups 32(%rsp), %xmm2
  movups 48(%rsp), %xmm3
  movups 64(%rsp), %xmm4
  movups 80(%rsp), %xmm5
  movups 96(%rsp), %xmm6
  movups 112(%rsp), %xmm7
  movq 128(%rsp), %rdi
  movq 136(%rsp), %rsi
  movq 144(%rsp), %rdx
  movq 152(%rsp), %rcx
  movq 160(%rsp), %r8
  movq 168(%rsp), %r9
  movq 176(%rsp), %rax
  leave
  jmp *%r11

#elif defined(__aarch64__)

#define LAZY(name)                                              \
  .section .data.nst_lazy, "aw"; .p2align 3; slot_##name: .quad first_##name; \
  .section .rodata; name_##name: .asciz #name;                  \
  .section .data.rel.ro.nst_lazy, "aw"; .quad slot_##name, name_##name; \
  .text; .globl name; .type name, %function;                    \
  name: adrp x16, slot_##name; ldr x16, [x16, :lo12:slot_##name]; br x16; \
  first_##name: adrp x17, slot_##name; add x17, x17, :lo12:slot_##name; b nst_lazy_first;

  .text
nst_lazy_first:
  stp x29, x30, [sp, -224]!
  mov x29, sp
  stp x0, x1, [sp, 16]
  stp x2, x3, [sp, 32]
  stp x4, x5, [sp, 48]
  stp x6, x7, [sp, 64]
  str x8, [sp, 80]
  stp q0, q1, [sp, 96]
  stp q2, q3, [sp, 128]
  stp q4, q5, [sp, 160]
  stp q6, q7, [sp, 192]
  mov x0, x17
  bl nst_lazy_resolve
  mov x16, x0
  ldp x0, x1, [sp, 16]
  ldp x2, x3, [sp, 32]
  ldp x4, x5, [sp, 48]
  ldp x6, x7, [sp, 64]
  ldr x8, [sp, 80]
  ldp q0, q1, [sp, 96]
  ldp q2, q3, [sp, 128]
  ldp q4, q5, [sp, 160]
  ldp q6, q7, [sp, 192]
  ldp x29, x30, [sp], 224
  br x16

#endif

  .section .data.rel.ro.nst_lazy, "aw"
  .p2align 3
  .globl nst_lazy_begin
nst_lazy_begin:
#include "names.inc"
  .section .data.rel.ro.nst_lazy, "aw"
  .globl nst_lazy_end
nst_lazy_end:

  .section .note.GNU-stack, "", %progbits
