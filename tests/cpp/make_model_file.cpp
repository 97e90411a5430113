// make_model_file PATH: a small deployment file with random weights.
#include "make_model.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_model_file PATH\n");
    return 2;
  }
  model_file::write_small(argv[1]);
  return 0;
}
