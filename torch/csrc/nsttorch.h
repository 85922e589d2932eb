// The C ABI between package torch and libtorch: what gotorch's own C ABI lacks.
//
// Every function but the frees, nst_version, nst_abi and nst_kernels_name has one shape: it returns NULL, or a message
// that the caller frees with nst_message_free. Results go to out-parameters,
// which are written only on success. Handles given to a function are borrowed;
// handles written to an out-parameter belong to the caller. Tensor handles are
// gotorch's (at::Tensor*), so they can be passed to either library.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void* nst_tensor;
typedef void* nst_module;
typedef void* nst_optimizer;
typedef void* nst_convolution;
typedef void* nst_graph;

// In which directions pictures come round: what is beyond one edge is what lies at the other. Each is 0 or 1.
typedef struct {
  int32_t x, y;
} nst_wrap;

void nst_message_free(const char* message);

// Tensors (tensor.cc). Sizes are in elements; dims is at most 8.
void nst_tensor_free(nst_tensor t);
const char* nst_tensor_from_floats(const float* data, const int64_t* sizes, int64_t dims,
                                   const char* device, nst_tensor* out);
// A part of planes, [1,planes,h,w]. Beyond their edges they come round.
const char* nst_tensor_from_floats_part(const float* data, int64_t planes, int64_t height, int64_t width, int64_t top,
                                        int64_t left, int64_t h, int64_t w, nst_tensor* out);
const char* nst_tensor_from_bytes(const void* data, int64_t bytes, int32_t dtype,
                                  const int64_t* sizes, int64_t dims, nst_tensor* out);
const char* nst_tensor_full(double value, const int64_t* sizes, int64_t dims, const char* device,
                            nst_tensor* out);
const char* nst_tensor_floats(nst_tensor t, float* out, int64_t count);
const char* nst_tensor_bytes(nst_tensor t, void* out, int64_t bytes);
const char* nst_tensor_type(nst_tensor t, int32_t* dtype, int64_t* item_bytes);
const char* nst_tensor_sizes(nst_tensor t, int64_t* sizes, int64_t* dims);
const char* nst_tensor_device(nst_tensor t, char** name);
const char* nst_tensor_clone(nst_tensor t, nst_tensor* out);
const char* nst_tensor_to(nst_tensor t, const char* device, nst_tensor* out);
const char* nst_tensor_cast(nst_tensor t, int32_t dtype, nst_tensor* out);
const char* nst_tensor_copy(nst_tensor destination, nst_tensor source);
const char* nst_tensor_contiguous(nst_tensor t, int32_t channels_last, nst_tensor* out);
const char* nst_tensor_scale(nst_tensor t, double factor, nst_tensor* out);
const char* nst_tensor_scale_in_place(nst_tensor t, double factor);
const char* nst_tensor_pow(nst_tensor t, double exponent, nst_tensor* out);
const char* nst_tensor_clamp_in_place(nst_tensor t, double low, double high);
const char* nst_tensor_lerp_in_place(nst_tensor t, nst_tensor target, double weight);
const char* nst_tensor_avg_pool2d(nst_tensor t, nst_tensor* out);
const char* nst_tensor_flip(nst_tensor t, int64_t dim, nst_tensor* out);
const char* nst_tensor_slice(nst_tensor t, int64_t dim, int64_t start, int64_t end,
                             nst_tensor* out);
const char* nst_tensor_bmm(nst_tensor a, nst_tensor b, nst_tensor* out);
// The eigenvalues [N,n], in ascending order, and eigenvectors [N,n,n] of symmetric matrices [N,n,n]; NaN where they
// are not found.
const char* nst_tensor_eigh(nst_tensor t, nst_tensor* values, nst_tensor* vectors);
// Quantiles [N,K,count] of values x [N,K,P] with weights [N,P] of the sum 1 (NULL: all alike): those at (i+0.5)/count,
// linear between values. And by what values differ from the quantiles at their own ranks, [N,K,P].
const char* nst_quantiles(nst_tensor x, nst_tensor weights, int64_t count, nst_tensor* out);
const char* nst_quantile_differences(nst_tensor x, nst_tensor weights, nst_tensor quantiles, nst_tensor* out);
// Unit vectors (neighbours.cc): features f - mean [N,C,P] as directions, and what they were divided by [N,1,P], their
// lengths or 1e-4 of the mean's (no mean: 0). The gradient by the units becomes that by f, and the units are used up.
const char* nst_units(nst_tensor f, nst_tensor mean, nst_tensor* lengths, nst_tensor* out);
const char* nst_units_backward_in_place(nst_tensor gradient, nst_tensor units, nst_tensor lengths);
// For each column of queries [D,P] the column of candidates [D,R] whose product with it is largest, [P].
const char* nst_nearest(nst_tensor queries, nst_tensor candidates, nst_tensor* out);
// The places of a dimension that index [n] names, and a view of every step-th from the first.
const char* nst_tensor_index_select(nst_tensor t, int64_t dim, nst_tensor index, nst_tensor* out);
const char* nst_tensor_every(nst_tensor t, int64_t dim, int64_t first, int64_t step, nst_tensor* out);
// Maps [N,C,H*r,W*r] as [N,C*r*r,H,W], and back.
const char* nst_tensor_pixel_unshuffle(nst_tensor t, int64_t factor, nst_tensor* out);
const char* nst_tensor_pixel_shuffle(nst_tensor t, int64_t factor, nst_tensor* out);
// A view of the diagonals [N,n] of matrices [N,n,n].
const char* nst_tensor_diagonal(nst_tensor t, nst_tensor* out);
const char* nst_tensor_add_in_place(nst_tensor t, nst_tensor other, double factor);
const char* nst_tensor_subtract(nst_tensor t, nst_tensor a, nst_tensor b);
const char* nst_tensor_mul_in_place(nst_tensor t, nst_tensor other);
const char* nst_tensor_sums(nst_tensor t, nst_tensor* out);
// The sums of squares over all dimensions but the first.
const char* nst_tensor_square_sums(nst_tensor t, nst_tensor* out);
// Their roots.
const char* nst_tensor_norms(nst_tensor t, nst_tensor* out);
// Rows and columns of maps [N,C,H,W], which come round beyond their edges; what adds to those; and maps of h x w that
// are zero but there.
const char* nst_tensor_crop(nst_tensor t, int64_t top, int64_t left, int64_t h, int64_t w, nst_tensor* out);
const char* nst_tensor_add_around(nst_tensor t, nst_tensor part, int64_t top, int64_t left);
const char* nst_tensor_pad(nst_tensor t, int64_t top, int64_t left, int64_t h, int64_t w, nst_tensor* out);
// Which of the elements of a are less than b's.
const char* nst_tensor_lt(nst_tensor a, nst_tensor b, nst_tensor* out);
// Where mask [N] is set, t [N,...] takes what other has, which may be of one element.
const char* nst_tensor_where_in_place(nst_tensor t, nst_tensor mask, nst_tensor other);
const char* nst_tensor_empty_like(nst_tensor t, nst_tensor* out);
const char* nst_tensor_resize(nst_tensor t, int64_t height, int64_t width, int32_t cubic, nst_wrap wrap,
                              nst_tensor* out);
// nst_tensor_resize, cubic, of planes in memory of the caller's.
const char* nst_floats_resize(const float* data, int64_t planes, int64_t height, int64_t width, float* out,
                              int64_t to_height, int64_t to_width, nst_wrap wrap);

// Motion between pictures in memory of the caller's (flow.cc). The flow [2,H,W] from one RGB picture [3,H,W], with
// values in [0,1], to another: from(x,y) is to(x+u,y+v). And planes moved by a flow: out(x,y) = data(x+u,y+v).
const char* nst_flow(const float* from, const float* to, int64_t height, int64_t width, float* out);
const char* nst_warp(const float* data, int64_t planes, const float* flow, int64_t height, int64_t width, float* out);

// Automatic differentiation (autograd.cc). The grad mode belongs to the
// calling thread.
const char* nst_grad_mode(int32_t enabled, int32_t* before);
const char* nst_requires_grad(nst_tensor t, int32_t needed);
const char* nst_backward(const nst_tensor* tensors, const nst_tensor* gradients, int64_t count);
const char* nst_gradient(nst_tensor t, nst_tensor* out);
const char* nst_set_gradient(nst_tensor t, nst_tensor gradient);

// TorchScript (script.cc). Names are joined by newlines.
const char* nst_module_new(const char* name, nst_module* out);
const char* nst_module_load(const char* path, const char* device, nst_module* out);
void nst_module_free(nst_module m);
const char* nst_module_add_parameter(nst_module m, const char* name, nst_tensor value);
const char* nst_module_add_buffer(nst_module m, const char* name, nst_tensor value);
const char* nst_module_add_string(nst_module m, const char* name, const char* value);
const char* nst_module_define(nst_module m, const char* source);
const char* nst_module_save(nst_module m, const char* path);
const char* nst_module_schema(nst_module m, const char* method, char** schema);
const char* nst_module_string(nst_module m, const char* name, char** value);
const char* nst_module_set_string(nst_module m, const char* name, const char* value);
const char* nst_module_cast(nst_module m, int32_t dtype);
const char* nst_module_parameters(nst_module m, char** names);
const char* nst_module_parameter(nst_module m, const char* name, nst_tensor* out);
const char* nst_module_forward_pair(nst_module m, nst_tensor a, nst_tensor b, nst_tensor* out);
const char* nst_module_forward(nst_module m, nst_tensor image, const char* names, int64_t count,
                               nst_tensor* out);

// The network's layers and the products of feature matrices, with their
// gradients, outside autograd (conv.cc). A convolution borrows its weights
// [out,in,3,3] and bias [out] and keeps references to them. A mask is the
// layer's output after a ReLU, through which the gradient comes; NULL: none.
// A pool's scale is what the sum of 2x2 is multiplied by; 0: their maximum, for
// which chosen is written, which maximum it is, else NULL. Of a mode each is 0
// or 1, keep one of NST_KEEP: see ConvolutionMode in conv.go. Threads may share a convolution.
typedef struct {
  int32_t fast, replicate, keep, fused;
} nst_convolution_mode;
enum { NST_KEEP_SMALL, NST_KEEP_ALL, NST_KEEP_NONE };
const char* nst_kernels_name(void);
const char* nst_convolution_new(nst_tensor weight, nst_tensor bias, nst_convolution* out);
void nst_convolution_free(nst_convolution c);
const char* nst_convolution_forward(nst_convolution c, nst_tensor x, nst_convolution_mode mode, int32_t relu,
                                    nst_tensor* out);
const char* nst_convolution_backward(nst_convolution c, nst_tensor gradient, nst_tensor mask,
                                     nst_convolution_mode mode, nst_tensor* out);
// What a network sees of an image x: x*scale + offset, channels-last; and its
// gradient by x, in row order. Scale and offset are [1,C,1,1].
const char* nst_normalise(nst_tensor x, nst_tensor scale, nst_tensor offset, nst_tensor* out);
const char* nst_normalise_backward(nst_tensor gradient, nst_tensor scale, nst_tensor* out);
const char* nst_relu(nst_tensor x, nst_tensor* out);
const char* nst_relu_backward(nst_tensor gradient, nst_tensor y, nst_tensor* out);
const char* nst_pool(nst_tensor x, double scale, nst_tensor* out, nst_tensor* chosen);
const char* nst_max_pool_backward(nst_tensor chosen, nst_tensor y, nst_tensor gradient, int64_t h, int64_t w,
                                  nst_tensor* out);
const char* nst_average_pool_backward(nst_tensor gradient, double scale, int64_t h, int64_t w, nst_tensor* out);
const char* nst_syrk(nst_tensor f, double scale, nst_tensor* out);
const char* nst_baddbmm_in_place(nst_tensor sum, nst_tensor d, nst_tensor f, double beta, double alpha);

// Optimisers of one tensor (optim.cc). L-BFGS is for pictures [N,C,H,W] in row
// order, with values in [0,1]: its first step has the root mean square first,
// others at most radius. restart forgets the pictures of a mask [N], which were
// moved elsewhere, and halves their radius.
const char* nst_adam_new(nst_tensor t, double rate, double beta1, double beta2, double epsilon,
                         nst_optimizer* out);
const char* nst_lbfgs_new(nst_tensor t, double rate, int64_t history, double first, double radius, nst_wrap wrap,
                          nst_optimizer* out);
const char* nst_lbfgs_restart(nst_optimizer o, nst_tensor mask);
const char* nst_optimizer_step(nst_optimizer o, nst_tensor gradient);
// Adam counts its steps on the device; counts are capacities on the way in.
const char* nst_optimizer_state(nst_optimizer o, nst_tensor* tensors, int64_t* tensor_count,
                                double* numbers, int64_t* number_count);
const char* nst_optimizer_set_state(nst_optimizer o, const nst_tensor* tensors,
                                    int64_t tensor_count, const double* numbers,
                                    int64_t number_count);
const char* nst_optimizer_set_rate(nst_optimizer o, double rate);
void nst_optimizer_free(nst_optimizer o);

// Graphs of what the calling thread sends to a device (graph.cc). After begin,
// which succeeded, comes end, whatever happened between.
const char* nst_graph_begin(const char* device, nst_graph* out);
const char* nst_graph_end(nst_graph g);
const char* nst_graph_replay(nst_graph g);
void nst_graph_free(nst_graph g);

// Devices and threads (device.cc).
const char* nst_version(void);
// nst_load loads the library and libtorch with it, where that was not done yet. Its message stays
// its own. Without it, a function that is called in vain ends the process.
const char* nst_load(void);
// nst_abi is the SHA-256 of this header, as the library was compiled with it.
const char* nst_abi(void);
const char* nst_library_path(char** path);
const char* nst_load_device_library(const char* path);
const char* nst_load_cuda(void);
// Sends the device one tiny piece of work, to find out whether it can do any.
const char* nst_try_device(const char* name);
// A CUDA device's card and compute capability.
const char* nst_device_card(const char* name, char** card);
// A CUDA device's compute capability: 75 is 7.5.
const char* nst_device_capability(const char* name, int32_t* capability);
// What tensors may take of a CUDA device's memory, the cache of freed ones included; 0: all of it.
const char* nst_device_limit(const char* name, int64_t bytes);
// Which device, the calling thread's or any, CUDA serves no more in this process, and why; NULL: none.
const char* nst_device_lost(int32_t any, char** why);
// Makes a CUDA device the calling thread's, which does not print what CUDA says when things of a lost
// device are freed.
const char* nst_cuda_thread(const char* device);
// Where it is on the PCI bus, as NVIDIA's tools name it: 0000:65:00.0.
const char* nst_device_bus(const char* name, char** bus);
const char* nst_device_count(const char* type, int64_t* count);
const char* nst_device_synchronize(const char* device);
const char* nst_device_memory(const char* device, int64_t* free_bytes, int64_t* total_bytes,
                              int64_t* allocated, int64_t* peak);
const char* nst_device_reset_peak(const char* device);
const char* nst_device_empty_cache(const char* device);
// Gives back the host memory that is kept for large tensors (pool.cc).
const char* nst_host_memory_trim(void);
// What large tensors on the host have, at most since the reset; and a limit to it
// (0: none), beyond which allocations fail.
const char* nst_host_memory(int64_t* in_use, int64_t* peak);
const char* nst_host_memory_reset_peak(void);
const char* nst_host_memory_limit(int64_t bytes);
const char* nst_device_control(const char* command, int64_t value, int64_t* result);
const char* nst_device_journal(char** text);
// How CUDA computes what the calling thread sends; see Math in device.go.
const char* nst_set_math(int32_t tf32, int32_t autotune, int32_t deterministic);
const char* nst_threads(int64_t* count);
const char* nst_set_threads(int64_t count);

#ifdef __cplusplus
}
#endif
