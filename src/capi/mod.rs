//! The C ABI of `include/vipool.h`.
