//! What becomes of the address in each socket call: pure decisions over plain values.
