/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted sets of positions as flat arrays: K is thousands, and a memmove of that is cheap. */
#include "sim/kvset.h"

#include <string.h>

void ra_kvset_init(struct ra_kvset *set, int32_t *storage, int32_t capacity)
{
    *set = (struct ra_kvset){storage, 0, capacity};
}

int32_t ra_kvset_find(const int32_t *list, int32_t n, int32_t pos)
{
    int32_t low = 0, high = n;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (list[middle] < pos)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool ra_kvset_has(const int32_t *list, int32_t n, int32_t pos)
{
    int32_t i = ra_kvset_find(list, n, pos);
    return i < n && list[i] == pos;
}

static void shift(struct ra_kvset *set, int32_t from, int32_t to)
{
    memmove(set->pos + to, set->pos + from, (size_t)(set->n - from) * sizeof *set->pos);
}

bool ra_kvset_insert(struct ra_kvset *set, int32_t pos)
{
    int32_t i = set->n;
    if (i > 0 && set->pos[i - 1] >= pos)
        i = ra_kvset_find(set->pos, set->n, pos);
    if (i < set->n && set->pos[i] == pos)
        return false;
    RA_BUG_ON(set->n == set->capacity);
    shift(set, i, i + 1);
    set->pos[i] = pos;
    set->n++;
    return true;
}

bool ra_kvset_remove(struct ra_kvset *set, int32_t pos)
{
    int32_t i = ra_kvset_find(set->pos, set->n, pos);
    if (i == set->n || set->pos[i] != pos)
        return false;
    shift(set, i + 1, i);
    set->n--;
    return true;
}

void ra_kvset_assign(struct ra_kvset *set, const int32_t *pos, int32_t n)
{
    RA_BUG_ON(n > set->capacity);
    if (n > 0)
        memmove(set->pos, pos, (size_t)n * sizeof *pos);
    set->n = n;
    ra_kvset_sort(set->pos, n);
}

int32_t ra_kvset_common(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b)
{
    int32_t i = 0, j = 0, common = 0;
    while (i < n_a && j < n_b) {
        common += a[i] == b[j];
        int32_t at_a = a[i], at_b = b[j];
        i += at_a <= at_b;
        j += at_b <= at_a;
    }
    return common;
}

int32_t ra_kvset_union(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b, int32_t *out)
{
    int32_t i = 0, j = 0, n = 0;
    while (i < n_a || j < n_b) {
        bool from_a = j == n_b || (i < n_a && a[i] <= b[j]);
        bool from_b = i == n_a || (j < n_b && b[j] <= a[i]);
        out[n++] = from_a ? a[i] : b[j];
        i += from_a;
        j += from_b;
    }
    return n;
}

static void sift_down(int32_t *heap, int32_t n, int32_t i)
{
    int32_t moving = heap[i];
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= n)
            break;
        child += child + 1 < n && heap[child + 1] > heap[child];
        if (heap[child] <= moving)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

void ra_kvset_sort(int32_t *list, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift_down(list, n, i);
    for (int32_t end = n - 1; end > 0; end--) {
        int32_t largest = list[0];
        list[0] = list[end];
        list[end] = largest;
        sift_down(list, end, 0);
    }
}
