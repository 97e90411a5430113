# The CUDA kernels on the CPU: the same .cu files compiled by the host compiler against tests/cuda/host_cuda.h, with
# AddressSanitizer and UndefinedBehaviorSanitizer, which see what a kernel may touch.
file(GLOB cuda_kernels CONFIGURE_DEPENDS csrc/cuda/*.cu)
file(GLOB cuda_tests CONFIGURE_DEPENDS tests/cuda/test_*.cpp)
set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")

set(cuda_host_options -O1 -g -fno-omit-frame-pointer)
if(NOT LEWM_SANITIZE)
  list(APPEND cuda_host_options -fsanitize=address,undefined -fno-sanitize-recover=all)
endif()

add_library(lewm_cuda_host STATIC ${cuda_kernels} tests/cuda/host_cuda.cpp)
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
endforeach()
