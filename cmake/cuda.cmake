# The CUDA module, liblewm_cuda.so: the kernels and the engine over them, with the static CUDA runtime and nothing else.
# Loaded at run time from beside the core (csrc/plan/device_module.h); without it everything else works.
#   LEWM_CUDA=AUTO (default): built when CMake finds a CUDA compiler.  ON: an error without one.  OFF: never.
set(LEWM_CUDA AUTO CACHE STRING "Build the CUDA module: AUTO, ON or OFF")

if(LEWM_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(STATUS "lewm: no CUDA compiler, the CUDA module is not built")
    return()
  endif()
elseif(NOT LEWM_CUDA)
  return()
endif()

# Machine code for every desktop and server GPU that the toolkit knows (CUDA 12: up to sm_90; 12.8 and newer: also 100
# and 120), PTX of the newest for those to come, and of sm_80 for others, such as Jetsons.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(lewm_cuda_architectures AUTO)
  set(CMAKE_CUDA_ARCHITECTURES 80-real)  # of the compiler check
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_EXTENSION_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 12 has C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  if(LEWM_CUDA STREQUAL "AUTO")
    message(STATUS "lewm: CUDA ${CMAKE_CUDA_COMPILER_VERSION} is older than 12, the CUDA module is not built")
    return()
  endif()
  message(FATAL_ERROR "lewm: the CUDA module needs CUDA 12 or newer, found ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
if(lewm_cuda_architectures STREQUAL "AUTO")
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80 86-real 89-real 90-real 100-real 120)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80 86-real 89-real 90)
  endif()
endif()

file(GLOB cuda_module_sources CONFIGURE_DEPENDS csrc/cuda/*.cu csrc/cuda/*.cpp)
add_library(lewm_cuda MODULE ${cuda_module_sources})
target_include_directories(lewm_cuda PRIVATE csrc ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_definitions(lewm_cuda PRIVATE LEWM_VERSION_STRING="${LEWM_VERSION}")
# No contraction: candidates and refits have the CPU's bits; tensor cores and explicit fmaf are what is fast.
target_compile_options(lewm_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false>)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)  # six architectures: 2 MB instead of 8
  target_compile_options(lewm_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>)
endif()
set_target_properties(lewm_cuda PROPERTIES CUDA_STANDARD 20 CUDA_EXTENSIONS OFF
  CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden LINKER_LANGUAGE CUDA)
target_link_options(lewm_cuda PRIVATE LINKER:--exclude-libs,ALL)  # not the runtime of somebody else in the process

install(TARGETS lewm_cuda LIBRARY DESTINATION ${lewm_lib_dir} COMPONENT runtime)
