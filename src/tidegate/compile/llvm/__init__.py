"""Native code by LLVM: the only package that imports llvmlite."""
