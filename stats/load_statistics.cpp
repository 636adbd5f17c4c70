#include "switchyard/load_statistics.h"
