# The CUDA backend on the CPU: the same sources compiled by the host compiler against tests/cuda/host_cuda.h and
# host_runtime.h, with AddressSanitizer and UndefinedBehaviorSanitizer, which see what a kernel may touch.
file(GLOB cuda_kernels CONFIGURE_DEPENDS csrc/cuda/*.cu)
file(GLOB cuda_engine CONFIGURE_DEPENDS csrc/cuda/*.cpp)
file(GLOB cuda_tests CONFIGURE_DEPENDS tests/cuda/test_*.cpp)
set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")

set(cuda_host_options -O1 -g -fno-omit-frame-pointer)
if(NOT LEWM_SANITIZE)
  list(APPEND cuda_host_options -fsanitize=address,undefined -fno-sanitize-recover=all)
endif()

add_library(lewm_cuda_host STATIC ${cuda_kernels} ${cuda_engine} tests/cuda/host_cuda.cpp tests/cuda/host_runtime.cpp)
target_compile_definitions(lewm_cuda_host PUBLIC LEWM_CUDA_HOST_RUN)
target_compile_options(lewm_cuda_host PUBLIC ${cuda_host_options})
target_link_options(lewm_cuda_host PUBLIC ${cuda_host_options})
target_include_directories(lewm_cuda_host PUBLIC tests/cuda tests/cpp)
target_link_libraries(lewm_cuda_host PUBLIC lewm_core)
lewm_warnings(lewm_cuda_host)

foreach(source ${cuda_tests})
  get_filename_component(name ${source} NAME_WE)
  set(name cuda_${name})
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE lewm_cuda_host)
  lewm_warnings(${name})
  add_test(NAME ${name} COMMAND ${name})
  list(APPEND cuda_test_programs ${name})
endforeach()

# The same as a module that the library and the Python package load as they would load the real one (LEWM_CUDA_MODULE):
# device="cuda" from end to end, on the CPU. Without sanitizers, which a program that loads it would need too.
add_library(lewm_cuda_host_module MODULE ${cuda_kernels} ${cuda_engine} tests/cuda/host_cuda.cpp tests/cuda/host_runtime.cpp
            tests/cuda/host_module.cpp)
target_compile_definitions(lewm_cuda_host_module PRIVATE LEWM_CUDA_HOST_RUN LEWM_VERSION_STRING="${LEWM_VERSION}")
target_include_directories(lewm_cuda_host_module PRIVATE csrc tests/cuda)
target_link_options(lewm_cuda_host_module PRIVATE LINKER:-Bsymbolic)  # not the CUDA runtime of somebody else in the process
lewm_warnings(lewm_cuda_host_module)
if(LEWM_SHARED)
  add_executable(capi_device tests/cuda/capi_device.cpp)
  target_include_directories(capi_device PRIVATE tests/cpp)
  target_link_libraries(capi_device PRIVATE lewm ${CMAKE_DL_LIBS})
  lewm_warnings(capi_device)
  add_test(NAME cuda_capi_device COMMAND capi_device ${lewm_test_model})
  set_tests_properties(cuda_capi_device PROPERTIES FIXTURES_REQUIRED lewm_test_model
    ENVIRONMENT "LEWM_CUDA_MODULE=$<TARGET_FILE:lewm_cuda_host_module>")
  add_dependencies(capi_device lewm_cuda_host_module)
endif()

# The tests are tested: with a mistake planted in the sources (tests/cuda/faults.h) the test that covers them must fail.
function(lewm_cuda_faults test filter)
  foreach(fault ${ARGN})
    add_test(NAME cuda_fault_${fault} COMMAND ${test} ${filter})
    set_tests_properties(cuda_fault_${fault} PROPERTIES ENVIRONMENT "LEWM_CUDA_FAULT=${fault}" WILL_FAIL TRUE)
  endforeach()
endfunction()
lewm_cuda_faults(cuda_test_gemm every_shape kMissingStageBarrier kMissingSumBarrier kStaleStage kFragmentIndex kRaggedEdge kMissingResidual kGateStride)
lewm_cuda_faults(cuda_test_norm_attention layer_norm kShuffleMask)
lewm_cuda_faults(cuda_test_norm_attention attention kSoftmaxRescale kKeyBeyondEnd)
lewm_cuda_faults(cuda_test_search elites kMissingBarrier kTieToHigherIndex)
lewm_cuda_faults(cuda_test_search bits kUninitialisedShared kPhiloxCounter kBiasedStd)
lewm_cuda_faults(cuda_test_sigreg formulas kLastKnotWeight)
lewm_cuda_faults(cuda_test_engine streams kMissingDependency)
lewm_cuda_faults(cuda_test_plan deadlines_end kErrorLeftBehind)
lewm_cuda_faults(cuda_test_plan predictive kLoadedInCapture)

# -DLEWM_CUDA_COVERAGE=ON: `cmake --build . --target cuda_coverage` runs the host run and prints the lines of
# csrc/cuda that it has executed.
option(LEWM_CUDA_COVERAGE "Measure what the host run covers of csrc/cuda" OFF)
if(LEWM_CUDA_COVERAGE)
  target_compile_options(lewm_cuda_host PRIVATE --coverage)
  target_link_options(lewm_cuda_host PUBLIC --coverage)
  add_custom_target(cuda_coverage
    COMMAND ${CMAKE_CTEST_COMMAND} -R "^cuda_test" --output-on-failure
    COMMAND ${CMAKE_COMMAND} -DFOLDER=$<TARGET_FILE_DIR:lewm_cuda_host>/CMakeFiles/lewm_cuda_host.dir
            -P ${PROJECT_SOURCE_DIR}/cmake/cuda_coverage.cmake)
  add_dependencies(cuda_coverage ${cuda_test_programs})
endif()
