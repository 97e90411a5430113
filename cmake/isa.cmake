# Per-ISA translation units are named *_avx2.cpp, *_avx2_vnni.cpp, *_avx512.cpp, *_amx.cpp, *_neon.cpp, *_neon_dot.cpp:
# they are compiled with that instruction set's flags where the compiler has them, and left out elsewhere.
# LEWM_HAVE_<ISA> tells csrc/cpu/built_tiers.h.
include(CheckCXXCompilerFlag)

set(LEWM_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(LEWM_FLAGS_avx2_vnni ${LEWM_FLAGS_avx2} -mavxvnni)
set(LEWM_FLAGS_avx512 ${LEWM_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mavx512vnni)
set(LEWM_FLAGS_amx ${LEWM_FLAGS_avx512} -mamx-tile -mamx-bf16 -mamx-int8)
set(LEWM_FLAGS_neon "")
set(LEWM_FLAGS_neon_dot -march=armv8.2-a+dotprod+bf16)

# What includes csrc/cpu/built_tiers.h.
set(LEWM_KNOWS_TIERS csrc/cpu/isa.cpp csrc/cpu/sigreg_tiers.cpp tests/cpp/test_cpu_gemm.cpp tests/cpp/test_cpu_rows.cpp)

set(LEWM_ISAS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  foreach(isa avx2 avx2_vnni avx512 amx)
    string(JOIN " " flags ${LEWM_FLAGS_${isa}})
    check_cxx_compiler_flag("${flags}" LEWM_COMPILES_${isa})
    if(LEWM_COMPILES_${isa})
      list(APPEND LEWM_ISAS ${isa})
    endif()
  endforeach()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(APPEND LEWM_ISAS neon)
  check_cxx_compiler_flag("${LEWM_FLAGS_neon_dot}" LEWM_COMPILES_neon_dot)
  if(LEWM_COMPILES_neon_dot)
    list(APPEND LEWM_ISAS neon_dot)
  endif()
endif()

# Drops the sources of instruction sets that are not built from the list named `sources`, and sets the others' flags.
function(lewm_select_isa_sources sources)
  set(selected ${${sources}})
  foreach(isa avx2 avx2_vnni avx512 amx neon neon_dot)
    set(own ${selected})
    list(FILTER own INCLUDE REGEX "_${isa}\\.cpp$")
    if(isa IN_LIST LEWM_ISAS AND own MATCHES "kernels_${isa}")
      # Contraction off: where a kernel fuses a multiply and an add it says so, and every tier rounds alike.
      set_source_files_properties(${own} PROPERTIES COMPILE_OPTIONS "${LEWM_FLAGS_${isa}};-ffp-contract=off")
      string(TOUPPER ${isa} upper)
      set_property(SOURCE ${LEWM_KNOWS_TIERS} APPEND PROPERTY COMPILE_DEFINITIONS LEWM_HAVE_${upper})
    else()
      list(FILTER selected EXCLUDE REGEX "_${isa}\\.cpp$")
    endif()
  endforeach()
  set(${sources} ${selected} PARENT_SCOPE)
endfunction()
