#pragma once

#include "stable_tensor.h"
