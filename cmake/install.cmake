# liblewm, what a controller links: shared (LEWM_SHARED) and static (LEWM_STATIC), its headers, CMake package, pkg-config
# file and Debian package. In a wheel everything lies under lewm/, shared only and without version links, which a wheel
# cannot hold.
include(CMakePackageConfigHelpers)

option(LEWM_STATIC "Build liblewm as a static library too" ON)
if(SKBUILD)
  set(LEWM_STATIC OFF)
  set(lewm_lib_dir lewm/lib)
  set(lewm_include_dir lewm/include)
else()
  set(lewm_lib_dir ${CMAKE_INSTALL_LIBDIR})
  set(lewm_include_dir ${CMAKE_INSTALL_INCLUDEDIR})
endif()
set(lewm_cmake_dir ${lewm_lib_dir}/cmake/lewm)

# The soname changes whenever the ABI may: with every minor version before 1.0.
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(lewm_soversion ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
else()
  set(lewm_soversion ${PROJECT_VERSION_MAJOR})
endif()

function(lewm_add_library target type)
  add_library(${target} ${type} $<TARGET_OBJECTS:lewm_core>)
  target_include_directories(${target} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>
                                                 $<INSTALL_INTERFACE:${lewm_include_dir}>)
  target_compile_features(${target} INTERFACE c_std_99)
  add_library(lewm::${target} ALIAS ${target})
  if(LEWM_SANITIZE)
    target_link_options(${target} PUBLIC -fsanitize=${LEWM_SANITIZE})
  endif()
  set_property(GLOBAL APPEND PROPERTY LEWM_LIBRARIES ${target})
endfunction()

if(LEWM_SHARED)
  lewm_add_library(lewm SHARED)
  target_link_libraries(lewm PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  if(NOT SKBUILD)
    set_target_properties(lewm PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${lewm_soversion})
  endif()
  if(UNIX AND NOT APPLE)
    # Only the C interface leaves the library, not the templates of the standard library that it instantiates.
    target_link_options(lewm PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/lewm.map -Wl,--no-undefined)
    set_target_properties(lewm PROPERTIES LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/lewm.map)
  endif()
endif()

if(LEWM_STATIC)
  lewm_add_library(lewm_static STATIC)
  # A project in C alone does not know what C++ needs; one in C++ does.
  target_link_libraries(lewm_static INTERFACE Threads::Threads ${CMAKE_DL_LIBS} $<$<LINK_LANGUAGE:C>:stdc++> $<$<LINK_LANGUAGE:C>:m>)
  set_target_properties(lewm_static PROPERTIES OUTPUT_NAME lewm)
endif()

# Installation. Components: runtime (the shared library), development (the rest).
get_property(lewm_libraries GLOBAL PROPERTY LEWM_LIBRARIES)
if(NOT lewm_libraries)
  return()
endif()
install(TARGETS ${lewm_libraries} EXPORT lewmTargets
        LIBRARY DESTINATION ${lewm_lib_dir} COMPONENT runtime NAMELINK_COMPONENT development
        ARCHIVE DESTINATION ${lewm_lib_dir} COMPONENT development)
install(EXPORT lewmTargets NAMESPACE lewm:: DESTINATION ${lewm_cmake_dir} COMPONENT development)
install(DIRECTORY csrc/include/lewm DESTINATION ${lewm_include_dir} COMPONENT development FILES_MATCHING PATTERN "*.h*")

configure_package_config_file(cmake/lewmConfig.cmake.in lewmConfig.cmake INSTALL_DESTINATION ${lewm_cmake_dir})
write_basic_package_version_file(lewmConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lewmConfig.cmake ${PROJECT_BINARY_DIR}/lewmConfigVersion.cmake
        DESTINATION ${lewm_cmake_dir} COMPONENT development)

if(NOT SKBUILD)
  # Relative to where the file lies, so that the prefix may be chosen at installation or move later.
  file(RELATIVE_PATH lewm_pc_to_prefix /${lewm_lib_dir}/pkgconfig /)
  configure_file(cmake/lewm.pc.in lewm.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/lewm.pc DESTINATION ${lewm_lib_dir}/pkgconfig COMPONENT development)

  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright COMPONENT runtime)

  # cpack -G DEB: one package with both components.
  set(CPACK_PACKAGE_NAME lewm)
  set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
  set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
  set(CPACK_PACKAGE_CONTACT "lewm contributors")
  set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
  set(CPACK_STRIP_FILES ON)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)  # and run ldconfig
  include(CPack)
endif()

# The C interface in C, and its recorded symbols and layouts.
if(LEWM_TESTS AND LEWM_SHARED)
  foreach(name capi_c99 abi_layout)
    add_executable(${name} tests/cpp/${name}.c)
    target_link_libraries(${name} PRIVATE lewm)
    set_target_properties(${name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  endforeach()
  add_executable(capi_hpp tests/cpp/capi_hpp.cpp)
  target_link_libraries(capi_hpp PRIVATE lewm)
  set_target_properties(capi_hpp PROPERTIES CXX_STANDARD 17)
  add_executable(make_model_file tests/cpp/make_model_file.cpp)
  target_link_libraries(make_model_file PRIVATE lewm_core)
  set(lewm_test_model ${PROJECT_BINARY_DIR}/test_model.safetensors)
  add_test(NAME make_model_file COMMAND make_model_file ${lewm_test_model})
  set_tests_properties(make_model_file PROPERTIES FIXTURES_SETUP lewm_test_model)
  add_test(NAME capi_c99 COMMAND capi_c99 ${lewm_test_model})
  add_test(NAME capi_hpp COMMAND capi_hpp ${lewm_test_model})
  set_tests_properties(capi_c99 capi_hpp PROPERTIES FIXTURES_REQUIRED lewm_test_model)
  add_test(NAME abi COMMAND ${CMAKE_COMMAND} -DLIBRARY=$<TARGET_FILE:lewm> -DLAYOUT=$<TARGET_FILE:abi_layout>
                            -DNM=${CMAKE_NM} -DRECORDED=${PROJECT_SOURCE_DIR}/tests/cpp/abi.txt
                            -P ${PROJECT_SOURCE_DIR}/cmake/abi_check.cmake)
endif()
