"""matopt.torch against PyTorch: `python -m unittest discover python/tests`."""

import copy
import ctypes
import gc
import io
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import unittest
import warnings
from pathlib import Path

import torch
from torch import nn

import matopt.torch as mt

KELLER = (3.4445, -4.775, 2.0315)
SHAPES = [(8, 12), (12, 8), (6, 6), (16, 3)]


def tensors(dtype=torch.float64, shapes=SHAPES, seed=0, scale=0.5):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(s, generator=g, dtype=torch.float64) * scale).to(dtype) for s in shapes]


def parameters(dtype=torch.float64, shapes=SHAPES, seed=0):
    return [nn.Parameter(t) for t in tensors(dtype, shapes, seed)]


def gradients(step, dtype=torch.float64, shapes=SHAPES):
    return tensors(dtype, shapes, seed=1000 + step, scale=1.0)


def give(params, step):
    for p, g in zip(params, gradients(step, params[0].dtype, [tuple(p.shape) for p in params])):
        p.grad = g


def run(optimizer, params, steps, first=0):
    for t in range(first, first + steps):
        give(params, t)
        optimizer.step()


def distance(a, b):
    """The largest difference, relative to the largest entry."""
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(a, b))


def muon_in_float64(w, buffer, g, lr, decay, beta, nesterov, eps, steps, scale, coefficients=KELLER):
    """torch.optim.Muon's formula, without its casts to bfloat16."""
    buffer.mul_(beta).add_(g, alpha=1 - beta)
    x = (1 - beta) * g + beta * buffer if nesterov else buffer.clone()
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / max(x.norm().item(), eps)
    a, b, c = coefficients
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    x = x.T if tall else x
    w.mul_(1 - lr * decay).sub_(x, alpha=lr * scale(*w.shape))


SCALES = {
    None: lambda m, n: math.sqrt(max(1.0, m / n)),
    "original": lambda m, n: math.sqrt(max(1.0, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
    "spectral_unclamped": lambda m, n: math.sqrt(m / n),
}


def adjustments_of_pytorch():
    """What adjust_lr_fn may be in the PyTorch that is installed: older ones have two."""
    known = []
    for adjust in (None, "match_rms_adamw", "spectral_unclamped"):
        try:
            torch.optim.Muon([torch.nn.Parameter(torch.zeros(2, 2))], adjust_lr_fn=adjust)
            known.append(adjust)
        except ValueError:
            pass
    return known


class Trajectories(unittest.TestCase):
    def test_muon_is_the_formula_in_float64(self):
        for adjust, scale in SCALES.items():
            for nesterov in (True, False):
                for decay in (0.0, 0.1):
                    with self.subTest(adjust=adjust, nesterov=nesterov, decay=decay):
                        ours = parameters()
                        optimizer = mt.Muon(ours, lr=0.02, weight_decay=decay, nesterov=nesterov, adjust_lr_fn=adjust)
                        theirs = tensors()
                        buffers = [torch.zeros_like(w) for w in theirs]
                        for t in range(50):
                            give(ours, t)
                            optimizer.step()
                            for w, m, g in zip(theirs, buffers, gradients(t)):
                                muon_in_float64(w, m, g, 0.02, decay, 0.95, nesterov, 1e-7, 5, scale)
                        self.assertLess(distance(ours, theirs), 1e-12)

    def test_muon_with_other_coefficients(self):
        for own in ((2.0, -1.5, 0.5), [1.5, -0.5, 0.0], (1.875, -1.25, 0.375)):
            ours, theirs = parameters(), tensors()
            optimizer = mt.Muon(ours, lr=0.02, ns_coefficients=own)
            buffers = [torch.zeros_like(w) for w in theirs]
            for t in range(20):
                if t == 10:  # and back to the usual ones
                    optimizer.param_groups[0]["ns_coefficients"] = KELLER
                give(ours, t)
                optimizer.step()
                for w, m, g in zip(theirs, buffers, gradients(t)):
                    muon_in_float64(w, m, g, 0.02, 0.1, 0.95, True, 1e-7, 5, SCALES[None], own if t < 10 else KELLER)
            self.assertLess(distance(ours, theirs), 1e-12)
        with self.assertRaisesRegex(ValueError, "ns_coefficients is .1,2,3., which takes singular values"):
            optimizer.param_groups[0]["ns_coefficients"] = (1.0, 2.0, 3.0)
            optimizer.step()

    def test_muon_follows_the_shipped_one_within_its_rounding(self):
        shapes = [(48, 64), (64, 32)]
        for adjust in adjustments_of_pytorch():
            ours, theirs = (parameters(torch.float32, shapes) for _ in range(2))
            mine = mt.Muon(ours, lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust)
            shipped = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust)
            for t in range(50):
                before = [[p.detach().clone() for p in side] for side in (ours, theirs)]
                give(ours, t), give(theirs, t)
                mine.step(), shipped.step()
                for p, q, p0, q0 in zip(ours, theirs, *before):
                    u, v = (p - 0.998 * p0).flatten(), (q - 0.998 * q0).flatten()
                    self.assertGreater(torch.cosine_similarity(u, v, dim=0).item(), 0.9995)
                    self.assertAlmostEqual((u.norm() / v.norm()).item(), 1, delta=0.01)
            self.assertLess(distance(ours, theirs), 0.02)

    def test_adamw_is_pytorchs(self):
        for dtype, legal in ((torch.float32, 3e-6), (torch.float64, 1e-12)):
            for amsgrad in (False, True):
                ours, theirs = (parameters(dtype, SHAPES + [(7,), ()]) for _ in range(2))
                mine = mt.Optimizer(ours, rule="adamw", lr=3e-3, weight_decay=0.1, beta1=0.8, beta2=0.95, amsgrad=amsgrad)
                shipped = torch.optim.AdamW(theirs, lr=3e-3, weight_decay=0.1, betas=(0.8, 0.95), amsgrad=amsgrad)
                run(mine, ours, 200), run(shipped, theirs, 200)
                self.assertLess(distance(ours, theirs), legal)

    def test_every_rule_steps(self):
        self.assertGreaterEqual(len(mt.rules()), 61)
        for rule in mt.rules():
            with self.subTest(rule=rule):
                ours = parameters(torch.float32, [(6, 4), (4, 6)])
                own = {"rank_hold": 1, "rank_total": 4} if "rank_total" in mt.settings(rule) else {}
                optimizer = mt.Optimizer(ours, rule=rule, lr=0.01, **own)
                before = [p.detach().clone() for p in ours]
                for t in range(4):
                    give(ours, t)
                    references = gradients(50 + t, torch.float32, [(6, 4), (4, 6)])
                    needs = mt._functions.native.rule_facts(rule, mt._functions.to_native(own))[1]
                    optimizer.step(reference_grads=references if needs else None)
                for p, q in zip(ours, before):
                    self.assertTrue(p.isfinite().all())
                    self.assertFalse(p.equal(q))

    def test_a_group_of_one_tensor(self):
        for optimizer in (mt.Muon, mt.AdamW, mt.Optimizer):
            (p,) = parameters(shapes=[(8, 12)])
            optimizer = optimizer([{"params": p}])
            optimizer.add_param_group({"params": parameters(shapes=[(4, 3)])[0]})
            self.assertEqual([len(g["params"]) for g in optimizer.param_groups], [1, 1])
            self.assertIs(optimizer.param_groups[0]["params"][0], p)

    def test_reference_gradients_count(self):
        def final(first):
            ours = parameters(torch.float32)
            optimizer = mt.Optimizer(ours, rule="mars_m_exact", lr=0.01)
            for t in range(3):
                give(ours, t)
                optimizer.step(reference_grads=dict(zip(ours, gradients(first + t, torch.float32))))
            return ours

        self.assertGreater(distance(final(50), final(60)), 1e-4)
        self.assertTrue(all(p.equal(q) for p, q in zip(final(50), final(50))))
        ours = parameters(torch.float32)
        optimizer = mt.Optimizer(ours, rule="mars_m_exact", lr=0.01)
        run(optimizer, ours, 1)
        with self.assertRaisesRegex(ValueError, "reference gradient of .*missing"):
            run(optimizer, ours, 1)
        with self.assertRaisesRegex(ValueError, "estimates from one"):
            mt.Optimizer(ours, rule="muon").step(reference_grads=[p.grad for p in ours])


class Gradients(unittest.TestCase):
    def test_none_leaves_out(self):
        ours, other = parameters(), parameters()
        some, all_of = mt.Optimizer(ours, lr=0.02), mt.Optimizer(other[1:], lr=0.02)
        steps_of_first = [0, 3, 4]
        for t in range(6):
            give(ours, t), give(other, t)
            if t not in steps_of_first:
                ours[0].grad = None
                before = ours[0].detach().clone()
            some.step(), all_of.step()
            if t not in steps_of_first:
                self.assertTrue(ours[0].equal(before))
        for p, q in zip(ours[1:], other[1:]):
            self.assertTrue(p.equal(q))
        # As if the steps without it had not been.
        alone = parameters()[:1]
        few = mt.Optimizer(alone, lr=0.02)
        for t in steps_of_first:
            give(alone, t)
            few.step()
        self.assertTrue(alone[0].equal(ours[0]))

    def test_memory_of_a_gradient_that_is_gone_may_be_used(self):
        ours = [nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))]
        optimizer = mt.Optimizer(ours, lr=0.02)
        memory = torch.randn(4, 4)
        ours[0].grad, ours[1].grad = memory, torch.randn(4, 4)
        optimizer.step()
        ours[0].grad, ours[1].grad = None, memory
        optimizer.step()
        late = nn.Parameter(ours[1].grad)
        ours[1].grad, late.grad = torch.randn(4, 4), torch.randn(4, 4)
        optimizer.add_param_group({"params": [late]})
        before = late.detach().clone()
        optimizer.step()
        self.assertFalse(late.equal(before))

    def test_the_first_gradient_may_come_late(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02)
        for t in range(4):
            give(ours, t)
            if t < 2:
                ours[0].grad = None
            optimizer.step()
            self.assertIn(0, optimizer.state_dict()["state"])  # it may have one in the next step
        frozen = parameters()
        frozen[0].requires_grad_(False)
        optimizer = mt.Optimizer(frozen, lr=0.02)
        for t in range(4):
            give(frozen, t)
            if t < 2:
                frozen[0].grad = None
            if t == 1:
                self.assertNotIn(0, optimizer.state_dict()["state"])
            optimizer.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, frozen)))

    def test_any_strides(self):
        ways = {
            "expanded": lambda g: g[:1, :].expand(g.shape),
            "transposed": lambda g: g.T.contiguous().T,
            "every second": lambda g: torch.stack([g, g], -1)[..., 0],
            "repeated": lambda g: g[:1, :1].expand(g.shape),
        }
        for name, way in ways.items():
            with self.subTest(name):
                ours, plain = parameters(), parameters()
                a, b = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
                for t in range(4):
                    for p, q, g in zip(ours, plain, gradients(t)):
                        # Every other step as usual: the layout may change.
                        p.grad = way(g) if t % 2 == 0 else g.clone()
                        q.grad = p.grad.clone(memory_format=torch.contiguous_format)
                    a.step(), b.step()
                self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_shared_memory(self):
        ours, plain = parameters(shapes=[(6, 6), (6, 6)]), parameters(shapes=[(6, 6), (6, 6)])
        a, b = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
        for t in range(3):
            give(plain, t)
            plain[1].grad = plain[0].grad.clone()
            ours[0].grad = ours[1].grad = plain[0].grad.clone()
            a.step(), b.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_non_finite_skips(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02)
        run(optimizer, ours, 2)
        before, state = [p.detach().clone() for p in ours], copy.deepcopy(optimizer.state_dict()["state"])
        give(ours, 2)
        ours[1].grad[0, 0] = math.nan
        optimizer.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, before)))
        after = optimizer.state_dict()["state"]
        self.assertTrue(all(after[i]["momentum"].equal(state[i]["momentum"]) for i in state))
        self.assertEqual(optimizer.poll_status(), (1, ["param.1"]))
        self.assertEqual(optimizer.poll_status(), (0, []))
        ignoring = mt.Optimizer(ours, rule="adamw", nonfinite="ignore")
        ignoring.step()
        self.assertTrue(ours[1].isnan().any())

    def test_refused(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02)
        run(optimizer, ours, 1)
        before = [p.detach().clone() for p in ours]
        give(ours, 1)
        ours[2].grad = ours[2].grad.to_sparse()
        with self.assertRaisesRegex(ValueError, 'gradient of "param.2" is sparse'):
            optimizer.step()
        give(ours, 1)
        ours[0].data = ours[0].data.float()
        with self.assertRaisesRegex(ValueError, 'type of "param.0" is Float'):
            ours[0].grad = None
            optimizer.step()
        ours[0].data = before[0].clone()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, before)))
        reference = parameters()
        run(mt.Optimizer(reference, lr=0.02), reference, 2)
        run(optimizer, ours, 1, first=1)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, reference)))


class Parameters(unittest.TestCase):
    def test_data_is_replaced(self):
        ours, plain = parameters(), parameters()
        a, b = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
        for t in range(4):
            give(ours, t), give(plain, t)
            if t == 2:
                for p in ours:
                    p.data = p.data.clone()
            if t == 3:  # in other strides
                ours[0].data = ours[0].data.T.contiguous().T
            a.step(), b.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_views_of_storage(self):
        storage = torch.zeros(20, 30, dtype=torch.float64)
        plain = parameters(shapes=[(8, 12), (8, 12), (12, 8)])
        ours = [nn.Parameter(storage[:8, :12]), nn.Parameter(storage[8:16, 1:13]), nn.Parameter(storage[:8, 15:27].T)]
        for p, q in zip(ours, plain):
            p.data.copy_(q)
        run(mt.Optimizer(ours, lr=0.02), ours, 3), run(mt.Optimizer(plain, lr=0.02), plain, 3)
        self.assertLess(distance(ours, plain), 1e-13)
        with self.assertRaisesRegex(ValueError, "shared with"):
            both = [nn.Parameter(storage[:8, :12]), nn.Parameter(storage[4:12, :12])]
            run(mt.Optimizer(both), both, 1)

    def test_a_view_with_the_other_sign(self):
        # As x.conj().imag is: memory holds the negative of what PyTorch shows.
        ours, plain = parameters(), parameters()
        ours[0] = nn.Parameter(torch._neg_view(-ours[0].detach()))
        self.assertTrue(ours[0].is_neg() and ours[0].equal(plain[0]))
        a, b = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
        for t in range(3):
            give(ours, t), give(plain, t)
            ours[1].grad = torch._neg_view(-ours[1].grad)
            a.step(), b.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))
        self.assertTrue(mt.orthogonalize(torch._neg_view(-plain[0].detach())).equal(mt.orthogonalize(plain[0].detach())))

    def test_convolutions_are_matrices(self):
        ours = parameters(shapes=[(8, 3, 2, 2)])
        last = [nn.Parameter(ours[0].detach().clone().to(memory_format=torch.channels_last))]
        flat = [nn.Parameter(ours[0].detach().clone().view(8, 12))]
        optimizers = [mt.Optimizer(p, rule="muown", lr=0.02) for p in (ours, last, flat)]
        for t in range(4):
            (g,) = gradients(t, shapes=[(8, 3, 2, 2)])
            ours[0].grad, flat[0].grad = g.clone(), g.view(8, 12).clone()
            last[0].grad = g.to(memory_format=torch.channels_last)
            for o in optimizers:
                o.step()
        self.assertTrue(ours[0].view(8, 12).equal(flat[0]))
        self.assertTrue(last[0].equal(ours[0]))
        self.assertTrue(last[0].is_contiguous(memory_format=torch.channels_last))

    def test_stacks(self):
        ours = parameters(shapes=[(3, 8, 5)])
        apart = [nn.Parameter(ours[0].detach()[i].clone()) for i in range(3)]
        a, b = mt.Optimizer(ours, lr=0.02, stacked=True), mt.Optimizer(apart, lr=0.02)
        for t in range(3):
            give(ours, t)
            for i, p in enumerate(apart):
                p.grad = ours[0].grad[i].clone()
            a.step(), b.step()
        self.assertTrue(all(ours[0][i].equal(p) for i, p in enumerate(apart)))
        again = parameters(shapes=[(3, 8, 5)])
        c = mt.Optimizer(again, lr=0.02, stacked=True)
        c.load_state_dict(a.state_dict())
        again[0].data.copy_(ours[0])
        run(a, ours, 2), run(c, again, 2)
        self.assertTrue(again[0].equal(ours[0]))

    def test_tied_and_twice(self):
        p, q = parameters(shapes=[(8, 12), (8, 12)])
        once, other = [nn.Parameter(p.detach().clone())], mt.Optimizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twice = mt.Optimizer([p, p], lr=0.02)
        run(twice, [p], 3), run(other(once, lr=0.02), once, 3)
        self.assertTrue(p.equal(once[0]))
        with self.assertRaisesRegex(ValueError, "more than one parameter group"):
            mt.Optimizer([{"params": [p]}, {"params": [q, p]}])

    def test_without_elements(self):
        ours = [nn.Parameter(torch.zeros(0, 4)), *parameters(torch.float32)]
        optimizer = mt.Optimizer(ours, lr=0.02)
        run(optimizer, ours, 2)
        again = mt.Optimizer(ours, lr=0.02)
        again.load_state_dict(optimizer.state_dict())
        run(again, ours, 1)

    def test_sixteen_bits(self):
        for dtype in (torch.bfloat16, torch.float16):
            for rule in ("muon", "muown", "adamw"):
                with self.subTest(dtype=dtype, rule=rule):
                    # One step is the step in float, rounded.
                    ours = parameters(dtype)
                    wide = [nn.Parameter(p.detach().float()) for p in ours]
                    optimizer, exact = (mt.Optimizer(p, rule=rule, lr=0.02) for p in (ours, wide))
                    give(ours, 0)
                    for p, q in zip(ours, wide):
                        q.grad = p.grad.float()
                    optimizer.step(), exact.step()
                    self.assertTrue(all(p.equal(q.to(dtype)) for p, q in zip(ours, wide)))
                    self.assertTrue(all(t.dtype == torch.float32 for s in optimizer.state_dict()["state"].values()
                                        for k, t in s.items() if k != "step"))

    def test_masters_add_up(self):
        for dtype in (torch.bfloat16, torch.float16):
            kept, lost, wide = parameters(dtype), parameters(dtype), [nn.Parameter(p.detach().float()) for p in parameters(dtype)]
            start = [p.detach().clone() for p in kept]
            masters = mt.Optimizer(kept, rule="lion", lr=2e-6, master_weights=True)
            plain, exact = mt.Optimizer(lost, rule="lion", lr=2e-6), mt.Optimizer(wide, rule="lion", lr=2e-6)
            for _ in range(1000):
                for p, q, r in zip(kept, lost, wide):
                    p.grad, q.grad, r.grad = torch.ones_like(p), torch.ones_like(q), torch.ones_like(r)
                masters.step(), plain.step(), exact.step()
            self.assertTrue(all(p.equal(q.to(dtype)) for p, q in zip(kept, wide)))
            self.assertFalse(any(p.equal(q) for p, q in zip(kept, start)))
            large = [(p.abs() > 0.25) for p in start]
            self.assertTrue(all(p[m].equal(q[m]) for p, q, m in zip(lost, start, large)))
            # What somebody writes replaces the master.
            with torch.no_grad():
                kept[0].fill_(0.75)
            give(kept, 0)
            masters.step()
            self.assertLess((kept[0] - 0.75).abs().max().item(), 1e-2)

    def test_writes_last(self):
        for way, resync in ((lambda p: p.mul_(0.5), False), (lambda p: p.data.mul_(0.5), True)):
            ours = parameters()
            optimizer = mt.Optimizer(ours, rule="muown", lr=0.02)
            run(optimizer, ours, 3)
            with torch.no_grad():
                way(ours[0])
            if resync:
                optimizer.resync()
            halved = ours[0].detach().clone()
            optimizer.param_groups[0]["lr"] = 1e-9
            run(optimizer, ours, 1, first=3)
            self.assertLess((ours[0] - halved).abs().max().item(), 1e-6)

    def test_autograd_sees_the_write(self):
        p = nn.Parameter(torch.ones(3, 3))
        loss = (p * p).sum()
        p.grad = torch.ones(3, 3)
        mt.Optimizer([p], rule="adamw").step()
        with self.assertRaisesRegex(RuntimeError, "modified by an inplace operation"):
            loss.backward()

    def test_a_step_in_inference_mode(self):
        ours, plain = parameters(torch.bfloat16), parameters(torch.bfloat16)
        for params in (ours, plain):
            optimizer = mt.Optimizer(params, lr=0.02, master_weights=True)
            with torch.inference_mode(params is ours):
                run(optimizer, params, 2)
            with torch.no_grad():
                params[0].mul_(0.5)
            for p in params:
                p.grad = None
            run(optimizer, params, 2, first=2)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_tensors_that_stand_for_others(self):
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():  # as DTensor does, it comes with a __torch_dispatch__
            fake = nn.Parameter(torch.zeros(3, 3))
        with self.assertRaisesRegex(ValueError, '"param.0" is of a class that stands for other tensors'):
            mt.Optimizer([fake])
        with self.assertRaisesRegex(ValueError, "stands for other tensors"):
            mt.orthogonalize(fake)

    @unittest.skipUnless(hasattr(ctypes.CDLL(None), "mallinfo2"), "needs glibc 2.33")
    def test_memory_does_not_grow(self):
        class Info(ctypes.Structure):
            _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                             "fsmblks", "uordblks", "fordblks", "keepcost")]

        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = Info

        def allocated():  # what is resident depends on where the heap has holes
            gc.collect()
            info = mallinfo()
            return info.uordblks + info.hblkhd

        ours = parameters(torch.float32, [(64, 48), (48, 64), (32, 4, 3, 3), (64,)])
        optimizer = mt.Optimizer([{"params": ours[:3], "rule": "muown"}, {"params": ours[3:], "rule": "adamw"}])
        last = [nn.Parameter(p.detach().clone()) for p in ours]
        again = mt.Optimizer([{"params": last[:3], "rule": "muown"}, {"params": last[3:], "rule": "adamw"}])
        for t in range(1000):
            for p in ours:
                p.grad = torch.randn_like(p)
            optimizer.step()
            if t % 10 == 0:
                again.load_state_dict(optimizer.state_dict())
                optimizer.state
            if t == 200:
                before = allocated()
        self.assertLess(allocated() - before, 64 << 10)  # a gradient in each step would be 9 MiB

    def test_shape_and_device_stay(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours)
        run(optimizer, ours, 1)
        ours[0].data = torch.zeros(5, 5, dtype=torch.float64)
        ours[0].grad = None
        with self.assertRaisesRegex(ValueError, r"shape of \"param.0\" is \(5, 5\)"):
            optimizer.step()


class Groups(unittest.TestCase):
    def test_rules_of_their_own(self):
        m, v = parameters(torch.float32, [(8, 6)]), parameters(torch.float32, [(6,), (5, 4)], seed=3)
        both = mt.Optimizer([{"params": m, "rule": "muown", "lr": 0.02},
                             {"params": v, "rule": "adamw", "lr": 3e-3, "beta2": 0.95}])
        m2, v2 = parameters(torch.float32, [(8, 6)]), parameters(torch.float32, [(6,), (5, 4)], seed=3)
        one, two = mt.Optimizer(m2, rule="muown", lr=0.02), mt.Optimizer(v2, rule="adamw", lr=3e-3, beta2=0.95)
        for t in range(5):
            for p in (m, v, m2, v2):
                give(p, t)
            both.step(), one.step(), two.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(m + v, m2 + v2)))
        self.assertEqual(both.param_groups[1]["beta2"], 0.95)
        self.assertNotIn("momentum", both.param_groups[1])

    def test_mixed_types_in_one_group(self):
        ours = parameters(torch.float32, [(4, 4)]) + parameters(torch.float64, [(4, 4)]) + parameters(torch.bfloat16, [(4, 4)])
        optimizer = mt.Optimizer(ours, lr=0.02)
        before = [p.detach().clone() for p in ours]
        for p in ours:
            p.grad = torch.eye(4, dtype=p.dtype)
        optimizer.step()
        self.assertFalse(any(p.equal(q) for p, q in zip(ours, before)))
        self.assertEqual(sorted(optimizer.state_dict()["state"]), [0, 1, 2])

    def test_published_rates(self):
        self.assertEqual(mt.Optimizer(parameters(), rule="muon").param_groups[0]["lr"], 0.02)
        groups = mt.Optimizer([{"params": parameters()}, {"params": parameters(), "rule": "lion"}], rule="muon").param_groups
        self.assertEqual([g["lr"] for g in groups], [0.02, 1e-4])

    def test_schedulers(self):
        ours, plain = parameters(), parameters()
        optimizer = mt.Optimizer(ours, lr=0.04)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        by_hand = mt.Optimizer(plain, lr=0.04)
        for t in range(6):
            by_hand.param_groups[0]["lr"] = 0.04 * 0.5 ** (t // 2)
            give(ours, t), give(plain, t)
            optimizer.step(), by_hand.step()
            scheduler.step()
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))
        constant = parameters()
        run(mt.Optimizer(constant, lr=0.04), constant, 6)
        self.assertGreater(distance(ours, constant), 1e-3)

    def test_every_scheduler(self):
        # Rates and weights as with PyTorch's optimizers, stopped and resumed on the way.
        from torch.optim import lr_scheduler as of
        from torch.optim.swa_utils import SWALR

        made = {
            "ChainedScheduler": lambda o: of.ChainedScheduler([of.ConstantLR(o), of.ExponentialLR(o, 0.9)], o),
            "ConstantLR": of.ConstantLR,
            "CosineAnnealingLR": lambda o: of.CosineAnnealingLR(o, 8),
            "CosineAnnealingWarmRestarts": lambda o: of.CosineAnnealingWarmRestarts(o, 4),
            "CyclicLR": lambda o: of.CyclicLR(o, 1e-3, 1e-2, 3, cycle_momentum=False),
            "ExponentialLR": lambda o: of.ExponentialLR(o, 0.9),
            "LambdaLR": lambda o: of.LambdaLR(o, lambda epoch: 0.9**epoch),
            "LinearLR": of.LinearLR,
            "MultiStepLR": lambda o: of.MultiStepLR(o, [2, 5]),
            "MultiplicativeLR": lambda o: of.MultiplicativeLR(o, lambda epoch: 0.9),
            "OneCycleLR": lambda o: of.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
            "PolynomialLR": of.PolynomialLR,
            "ReduceLROnPlateau": lambda o: of.ReduceLROnPlateau(o, patience=1),
            "SequentialLR": lambda o: of.SequentialLR(o, [of.ConstantLR(o), of.ExponentialLR(o, 0.9)], [4]),
            "StepLR": lambda o: of.StepLR(o, 3),
            "SWALR": lambda o: SWALR(o, 0.05, anneal_epochs=4),
        }
        known = {n for n in dir(of) if isinstance(getattr(of, n), type) and issubclass(getattr(of, n), of.LRScheduler)}
        self.assertLessEqual(known - {"LRScheduler", "_LRScheduler"}, set(made))
        for name, schedule in made.items():
            for ours, theirs, lr in ((mt.AdamW, torch.optim.AdamW, 0.01), (mt.AdamW, torch.optim.AdamW, torch.tensor(0.01)),
                                     (mt.Muon, torch.optim.Muon, 0.01)):
                with self.subTest(scheduler=name, optimizer=ours.__name__, lr=lr):
                    ends = []
                    for kind in (ours, theirs):
                        params = parameters(torch.float32)
                        optimizer = kind(params, lr=copy.deepcopy(lr))
                        scheduler = schedule(optimizer)
                        rates = []
                        for t in range(10):
                            run(optimizer, params, 1, first=t)
                            scheduler.step(*((1.0,) if name == "ReduceLROnPlateau" else ()))
                            rates.append(float(optimizer.param_groups[0]["lr"]))
                            if t == 5:
                                saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
                                optimizer = kind(params, lr=copy.deepcopy(lr))
                                scheduler = schedule(optimizer)
                                optimizer.load_state_dict(saved[0]), scheduler.load_state_dict(saved[1])
                        ends.append((rates, params))
                    self.assertEqual(ends[0][0], ends[1][0])
                    self.assertLess(distance(ends[0][1], ends[1][1]), 2e-5 if ours is mt.AdamW else 0.05)

    def test_a_scheduler_of_momentum(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=8)
        plain, betas = parameters(), []
        by_hand = mt.Optimizer(plain)
        for t in range(6):
            betas.append(optimizer.param_groups[0]["momentum"])
            by_hand.param_groups[0].update(lr=optimizer.param_groups[0]["lr"], momentum=betas[-1])
            give(ours, t), give(plain, t)
            optimizer.step(), by_hand.step()
            scheduler.step()
        self.assertGreater(max(betas) - min(betas), 0.05)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_a_scheduler_of_momentum_with_a_rule_that_has_none(self):
        def made(cycle):
            m, v = parameters(shapes=[(8, 6)]), parameters(shapes=[(6,)], seed=3)
            optimizer = mt.Optimizer([{"params": m, "rule": "muon"}, {"params": v, "rule": "adamw"}])
            scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.05, step_size_up=3,
                                                          cycle_momentum=cycle)
            for t in range(6):
                give(m, t), give(v, t)
                optimizer.step()
                scheduler.step()
            mt.Optimizer([{"params": m, "rule": "muon"}, {"params": v, "rule": "adamw"}]).load_state_dict(
                optimizer.state_dict())
            return m + v

        (m, v), (m2, v2) = made(True), made(False)
        self.assertFalse(m.equal(m2))
        self.assertTrue(v.equal(v2))
        with self.assertRaisesRegex(ValueError, "cycle_momentum"):  # PyTorch's own error
            torch.optim.lr_scheduler.CyclicLR(mt.Optimizer(parameters(), rule="adamw"), base_lr=0.01, max_lr=0.05)

    def test_settings_change(self):
        a, b = parameters(), tensors()
        optimizer = mt.Muon(a, lr=0.02)
        buffers = [torch.zeros_like(w) for w in b]
        for t in range(4):
            optimizer.param_groups[0].update(momentum=0.9 - 0.1 * t, weight_decay=0.1 * t, ns_steps=5 - t % 2)
            give(a, t)
            optimizer.step()
            for w, m, g in zip(b, buffers, gradients(t)):
                muon_in_float64(w, m, g, 0.02, 0.1 * t, 0.9 - 0.1 * t, True, 1e-7, 5 - t % 2, SCALES[None])
        self.assertLess(distance(a, b), 1e-12)
        optimizer.param_groups[0]["momentum"] = 1.5
        with self.assertRaisesRegex(ValueError, r"momentum is 1.5; legal: \[0, 1\)"):
            optimizer.step()
        optimizer.param_groups[0].update(momentum=0.9, lr=-1.0)
        with self.assertRaisesRegex(ValueError, "lr of group 0 is -1"):
            optimizer.step()

    def test_groups_come_late(self):
        ours, plain = parameters(), parameters()
        a, b = mt.Optimizer(ours[:2], lr=0.02), mt.Optimizer(plain, lr=0.02)
        run(a, ours[:2], 3)
        for t in range(3):
            give(plain, t)
            for p in plain[2:]:
                p.grad = None
            b.step()
        a.add_param_group({"params": ours[2:], "rule": "muon", "lr": 0.02})
        run(a, ours, 3, first=3), run(b, plain, 3, first=3)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_refused(self):
        for what, words in (
            (lambda: mt.Optimizer(parameters(), rule="moun"), 'nearest: "muon"'),
            (lambda: mt.Optimizer(parameters(), momentun=0.9), 'nearest: "momentum"'),
            (lambda: mt.Optimizer(parameters(), momentum=1.0), r"momentum is 1; legal: \[0, 1\)"),
            (lambda: mt.Optimizer([{"params": parameters(), "momentun": 0.9}]), 'nearest: "momentum"'),
            (lambda: mt.Optimizer(parameters(shapes=[(4, 4), (4,)]), rule="muon"), r'"param.1" is \(4\)'),
            (lambda: mt.Optimizer(parameters(shapes=[(4,)]), rule="soap"), "steps matrices"),
            (lambda: mt.Optimizer([nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))]), "ComplexFloat"),
            (lambda: mt.Optimizer(parameters(), lr=-0.1), "lr of group 0 is -0.1"),
            (lambda: mt.Optimizer(parameters(), nonfinite="maybe"), "nonfinite"),
            (lambda: mt.Optimizer([parameters()[0] * 2]), "non-leaf"),
            (lambda: mt.Optimizer([]), "empty parameter list"),
        ):
            with self.assertRaisesRegex(ValueError, words):
                what()
        for what, words in (
            (lambda: mt.Optimizer(parameters(), momentum=None), "momentum is None"),
            (lambda: mt.Optimizer([{"params": parameters(), "lr": None}]), "lr is None"),
            (lambda: mt.Optimizer(parameters(), rule=None), "rule"),
            (lambda: mt.AdamW(parameters(), eps="small"), "eps is .small.; legal: a number"),
            (lambda: mt.Muon(parameters(), momentum=[0.9, 0.8]), "momentum is .0.9,0.8."),
        ):
            with self.assertRaisesRegex(ValueError, words):
                what()
        named = mt.Optimizer([("layer.weight", parameters()[0])])
        named.param_groups[0]["params"][0].grad = torch.full((8, 12), math.inf, dtype=torch.float64)
        named.step()
        self.assertEqual(named.poll_status().parameters, ["layer.weight"])
        # What is refused is not there.
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02)
        with self.assertRaises(ValueError):
            optimizer.add_param_group({"params": parameters(shapes=[(4,)])})
        self.assertEqual(len(optimizer.param_groups), 1)
        run(optimizer, ours, 1)


    def test_what_other_programs_put_into_groups(self):
        layers = [{"params": [p], "lr_scale": 0.5} for p in parameters()]  # timm, whose schedulers look at it
        for optimizer in (mt.Optimizer(copy.deepcopy(layers)), mt.AdamW(copy.deepcopy(layers)), mt.Muon(layers)):
            self.assertEqual([g["lr_scale"] for g in optimizer.param_groups], [0.5] * 4)
            optimizer.param_groups[0]["anything"] = object()
            optimizer.step()

    def test_numbers_of_other_libraries(self):
        a, b = parameters(), parameters()
        one = {"lr": 0.25, "momentum": 0.5, "ns_steps": 4}
        run(mt.Optimizer(a, **one), a, 2)
        run(mt.Optimizer(b, **{name: torch.tensor(x).numpy()[()] for name, x in one.items()}), b, 2)
        self.assertTrue(all(p.equal(q) for p, q in zip(a, b)))
        yes = torch.tensor(True).numpy()[()]
        self.assertIs(mt.Optimizer(parameters(), rule="adamw", amsgrad=yes).param_groups[0]["amsgrad"], True)
        self.assertIs(mt.Optimizer(parameters(), rule="adamw", amsgrad=torch.tensor(True)).param_groups[0]["amsgrad"], True)

    def test_what_is_exchanged_in_a_group_is_noticed(self):
        def other_tensor(o):
            o.param_groups[0]["params"][0] = parameters()[0]

        def one_more(o):
            o.param_groups[0]["params"].append(parameters()[0])

        def one_less(o):
            o.param_groups[0]["params"].pop()

        for change, words in ((other_tensor, "params of group 0"), (one_more, "params of group 0"),
                              (one_less, "params of group 0"), (lambda o: o.param_groups.pop(), "number of groups is 0"),
                              (lambda o: o.param_groups.append(dict(o.param_groups[0])), "number of groups is 2"),
                              (lambda o: o.param_groups[0].update(master_weights=True), "master_weights of group 0"),
                              (lambda o: o.param_groups[0].update(stacked=True), "stacked of group 0")):
            ours = parameters()
            optimizer = mt.Optimizer(ours, lr=0.02)
            run(optimizer, ours, 1)
            before = [p.detach().clone() for p in ours]
            optimizer.param_groups[0]["lr"] = 0.5
            change(optimizer)
            with self.assertRaisesRegex(ValueError, words):
                run(optimizer, ours, 1, first=1)
            self.assertTrue(all(p.equal(q) for p, q in zip(ours, before)))
        optimizer = mt.Optimizer(parameters())
        optimizer.load_state_dict(optimizer.state_dict())  # makes new groups of the same tensors
        optimizer.step()


class Roles(unittest.TestCase):
    def test_suggested(self):
        model = nn.ModuleDict({"wte": nn.Embedding(64, 16), "mlp": nn.Linear(16, 24), "lm_head": nn.Linear(16, 64)})
        names, params = zip(*model.named_parameters())
        self.assertEqual(names, ("wte.weight", "mlp.weight", "mlp.bias", "lm_head.weight", "lm_head.bias"))
        roles = mt.suggest_roles(names, [p.shape for p in params])
        self.assertEqual(roles, ["embedding", "hidden", "vector", "head", "vector"])
        with self.assertRaises(ValueError):
            mt.suggest_roles(names, [(2, 2)])

    def test_an_embedding_or_a_head_is_no_matrix_unless_confirmed(self):
        def named(name, *shape):
            return (name, nn.Parameter(torch.zeros(*shape)))

        for rule in ("muon", "muown", "numuon", "soap_muon"):
            own = {"rank_total": 20} if "rank_total" in mt.settings(rule) else {}
            for name, shape, words in (("wte.weight", (64, 16), r'"wte.weight" \(64, 16\).*' + rule + ".*embedding"),
                                       ("lm_head.weight", (64, 16), "output head"), ("any", (8192, 32), "embedding")):
                with self.subTest(rule=rule, name=name):
                    with self.assertRaisesRegex(ValueError, words):
                        mt.Optimizer([named(name, *shape)], rule=rule, **own)
                    mt.Optimizer([named(name, *shape)], rule=rule, confirmed=True, **own)
        optimizer = mt.Optimizer([named("h.0.mlp", 16, 8)])
        with self.assertRaisesRegex(ValueError, "confirmed"):
            optimizer.add_param_group({"params": [named("wpe.weight", 16, 8)]})
        with self.assertRaisesRegex(ValueError, "confirmed"):
            mt.Optimizer([nn.Parameter(torch.zeros(16, 10000))])  # no name: the shape tells
        self.assertEqual(len(optimizer.param_groups), 1)
        optimizer.add_param_group({"params": [named("head.weight", 16, 8)], "confirmed": True})
        optimizer.add_param_group({"params": [named("wte.weight", 16, 8)], "rule": "adamw"})
        optimizer.load_state_dict(optimizer.state_dict())
        mt.Optimizer([nn.Parameter(torch.zeros(512, 1024, 3, 3))])  # a convolution has no vocabulary

    def test_muon_warns(self):
        for take in (mt.Muon, torch.optim.Muon):  # the shipped one takes them without a word
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                take([("wte.weight", nn.Parameter(torch.zeros(64, 16))), ("mlp", nn.Parameter(torch.zeros(8, 8)))])
            self.assertEqual(["wte.weight" in str(w.message) for w in said], [True] if take is mt.Muon else [])


class State(unittest.TestCase):
    def go_on(self, make, dtype=torch.float32, shapes=SHAPES):
        ours = parameters(dtype, shapes)
        optimizer = make(ours)
        run(optimizer, ours, 7)
        file = io.BytesIO()
        torch.save({"model": [p.detach() for p in ours], "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        again = parameters(dtype, shapes, seed=9)
        other = make(again)
        other.load_state_dict(saved["optimizer"])
        with torch.no_grad():
            for p, q in zip(again, saved["model"]):
                p.copy_(q)
        run(optimizer, ours, 10, first=7), run(other, again, 10, first=7)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, again)))
        fresh = parameters(dtype, shapes, seed=9)
        with torch.no_grad():
            for p, q in zip(fresh, saved["model"]):
                p.copy_(q)
        run(make(fresh), fresh, 10, first=7)
        self.assertFalse(all(p.equal(q) for p, q in zip(ours, fresh)))

    def test_ten_more_steps(self):
        for rule in ("muon", "adamw", "muown", "angular_muown", "normuon", "soap", "mars_m", "numuon_krylov"):
            own = {"rank_hold": 3, "rank_total": 20} if rule == "numuon_krylov" else {}
            for dtype in (torch.float32, torch.float64):
                with self.subTest(rule=rule, dtype=dtype):
                    self.go_on(lambda p, rule=rule, own=own: mt.Optimizer(p, rule=rule, lr=0.02, **own), dtype)
        for master in (True, False):
            with self.subTest(master=master):
                self.go_on(lambda p, m=master: mt.Optimizer(p, lr=0.02, master_weights=m), torch.bfloat16)
        self.go_on(lambda p: mt.Muon(p, lr=0.02))
        self.go_on(lambda p: mt.Optimizer([{"params": p[:2]}, {"params": p[2:], "rule": "adamw"}]))

    def test_what_is_in_it(self):
        ours = parameters(torch.float32)
        optimizer = mt.Optimizer(ours, lr=0.02)
        self.assertEqual(optimizer.state_dict()["state"], {})
        run(optimizer, ours, 2)
        saved = optimizer.state_dict()
        self.assertEqual(set(saved["state"][0]), {"step", "momentum"})
        self.assertEqual(saved["state"][0]["step"], 2)
        self.assertEqual([saved["state"][i]["momentum"].shape for i in range(4)], [p.shape for p in ours])
        m = [torch.zeros(s) for s in SHAPES]
        for t in range(2):
            for b, g in zip(m, gradients(t, torch.float32)):
                b.mul_(0.95).add_(g, alpha=0.05)
        self.assertLess(distance([saved["state"][i]["momentum"] for i in range(4)], m), 1e-6)
        self.assertEqual(saved["param_groups"][0]["momentum"], 0.95)
        # The same by parameter, in copies.
        self.assertEqual(list(optimizer.state), ours)
        for i, p in enumerate(ours):
            self.assertTrue(optimizer.state[p]["momentum"].equal(saved["state"][i]["momentum"]))
            optimizer.state[p]["momentum"].zero_()
        self.assertGreater(optimizer.state[ours[0]]["momentum"].abs().sum().item(), 0)
        self.assertFalse(mt.Optimizer(ours).state)

    def test_assigned(self):
        ours, plain = parameters(), parameters()
        optimizer, control = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
        run(optimizer, ours, 3)
        optimizer.state = {}  # as programs do that begin anew
        self.assertFalse(optimizer.state)
        with torch.no_grad():
            for p, q in zip(ours, plain):
                p.copy_(q)
        run(optimizer, ours, 3), run(control, plain, 3)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))
        changed = optimizer.state
        changed[ours[1]]["momentum"].zero_()
        optimizer.state = changed
        self.assertEqual(optimizer.state[ours[1]]["momentum"].abs().sum().item(), 0)
        self.assertTrue(optimizer.state[ours[0]]["momentum"].equal(control.state[plain[0]]["momentum"]))
        changed[ours[2]]["momentum"] = torch.zeros(5, 5)
        with self.assertRaisesRegex(ValueError, r'"momentum" of "param.2" is of shape \(5, 5\)'):
            optimizer.state = changed
        self.assertEqual(optimizer.state[ours[1]]["step"], 3)

    def test_assigned_by_parameter(self):
        # As programs do that load or clear the state of others; ZeroRedundancyOptimizer is one.
        ours, plain = parameters(), parameters()
        optimizer, control = mt.AdamW(ours), mt.AdamW(plain)
        run(optimizer, ours, 2), run(control, plain, 5)
        for p, q in zip(ours, plain):
            optimizer.state[p] = control.state[q]
            with torch.no_grad():
                p.copy_(q)
        run(optimizer, ours, 3, first=5), run(control, plain, 3, first=5)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))
        kept = optimizer.state[ours[1]]
        before = optimizer._native
        optimizer.state[ours[1]] = {name: t.clone() for name, t in kept.items()}
        self.assertIs(optimizer._native, before)  # what is there needs not be loaded
        self.assertEqual(optimizer.state.pop(ours[1])["step"], 8)
        self.assertNotIn(ours[1], optimizer.state)
        self.assertEqual(optimizer.state[ours[1]], {})
        self.assertEqual(optimizer.state.get(ours[1], "none"), "none")
        self.assertEqual(optimizer.state.pop(ours[1], "none"), "none")
        del optimizer.state[ours[2]]
        self.assertEqual(list(optimizer.state), [ours[0], ours[3]])
        with self.assertRaises(KeyError):
            del optimizer.state[ours[2]]
        with self.assertRaisesRegex(ValueError, r'"exp_avg" in the state dict is 5; legal: a tensor'):
            optimizer.state[ours[2]] = {"exp_avg": 5}
        optimizer.state[ours[1]] = kept
        self.assertTrue(optimizer.state[ours[1]]["exp_avg"].equal(kept["exp_avg"]))
        self.assertIs(type(copy.deepcopy(optimizer.state)), dict)
        optimizer.state.clear()
        self.assertFalse(optimizer.state)

    def test_where_new_tensors_are_elsewhere(self):
        # As within torch.device("meta"), where models are made without memory.
        ours = parameters()
        for optimizer in (mt.Optimizer(ours), mt.AdamW(ours)):
            run(optimizer, ours, 2)
            with torch.device("meta"):
                saved = optimizer.state_dict()
                optimizer.load_state_dict(saved)
                optimizer.step()
            self.assertEqual({t.device.type for s in saved["state"].values() for t in s.values()}, {"cpu"})

    def test_distributed_checkpoints(self):
        # PyTorch takes a step with gradients of zero where an optimizer has no state; ours has.
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

        def made():
            model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
            weights, biases = [[getattr(layer, kind) for layer in model] for kind in ("weight", "bias")]
            optimizer = mt.Optimizer([{"params": weights}, {"params": biases, "rule": "adamw"}], lr=0.02)
            return model, optimizer, weights + biases

        model, optimizer, ours = made()
        run(optimizer, ours, 3)
        optimizer.zero_grad()
        before = optimizer.state_dict()["state"]
        saved = get_optimizer_state_dict(model, optimizer)
        after = optimizer.state_dict()["state"]
        self.assertTrue(all(t.equal(after[i][name]) for i, s in before.items() for name, t in s.items()))
        again, other, theirs = made()
        again.load_state_dict(model.state_dict())
        set_optimizer_state_dict(again, other, saved)
        run(optimizer, ours, 3, first=3), run(other, theirs, 3, first=3)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, theirs)))

    def test_loading_what_does_not_fit_changes_nothing(self):
        ours, plain = parameters(), parameters()
        optimizer, control = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
        run(optimizer, ours, 2), run(control, plain, 2)
        good = optimizer.state_dict()
        other_rule = mt.Optimizer(parameters(), rule="adamw").state_dict()
        missing, shape, more, number, sparse, whole = (copy.deepcopy(good) for _ in range(6))
        number["state"][0]["momentum"] = 5
        sparse["state"][0]["momentum"] = torch.zeros(8, 12).to_sparse()
        whole["state"][0]["momentum"] = torch.zeros(8, 12, dtype=torch.int32)
        del missing["state"][1]["momentum"]
        missing["state"][1]["momentun"] = torch.zeros(12, 8)
        shape["state"][3]["momentum"] = torch.zeros(3, 3)
        more["state"][2]["second"] = torch.zeros(6, 6)
        for bad, words in ((other_rule, 'rule "adamw"'), (missing, 'state "momentum" of "param.1" is missing'),
                           (shape, r'of "param.3" is of shape \(3, 3\)'), (more, 'state "second" of "param.2"'),
                           (number, '"momentum" in the state dict is 5'), (sparse, '"momentum" of "param.0" is sparse'),
                           (whole, '"momentum" of "param.0" is of type Int')):
            with self.assertRaisesRegex(ValueError, words):
                optimizer.load_state_dict(bad)
        # Of an optimizer of PyTorch: it is said who can load that.
        for other, state in ((torch.optim.AdamW(plain), "exp_avg"), (torch.optim.Muon(plain), "momentum_buffer")):
            kept = [p.detach().clone() for p in plain]
            other.step()
            for p, q in zip(plain, kept):
                p.data.copy_(q)
            with self.assertRaisesRegex(ValueError, f'"{state}".*matopt.torch.AdamW'):
                optimizer.load_state_dict(other.state_dict())
        run(optimizer, ours, 2, first=2), run(control, plain, 2, first=2)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_loading_parameters_in_another_order(self):
        # Of one shape, so that nothing else tells.
        ours = parameters(torch.float32, [(6, 6), (6, 6)])
        a, b = ("a", ours[0]), ("b", ours[1])
        for before, after in (([a, b], [b, a]), ([{"params": [a]}, {"params": [b]}], [{"params": [b]}, {"params": [a]}])):
            optimizer, other = mt.Optimizer(before), mt.Optimizer(after)
            run(optimizer, ours, 1)
            with self.assertRaisesRegex(ValueError, '"a" in the place of "b"'):
                other.load_state_dict(optimizer.state_dict())
            self.assertFalse(other.state)
        renamed = mt.Optimizer([("module.a", ours[0]), ("module.b", ours[1])])
        renamed.load_state_dict(mt.Optimizer([a, b]).state_dict())

    def test_saved_settings_come_back(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02, momentum=0.8)
        run(optimizer, ours, 2)
        again = [nn.Parameter(p.detach().clone()) for p in ours]
        other = mt.Optimizer(again, lr=0.5, momentum=0.9)
        other.load_state_dict(optimizer.state_dict())
        self.assertEqual((other.param_groups[0]["lr"], other.param_groups[0]["momentum"]), (0.02, 0.8))
        run(optimizer, ours, 3, first=2), run(other, again, 3, first=2)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, again)))

    def test_copies_and_pickles(self):
        model = nn.Linear(6, 5).double()
        model.weight.requires_grad_(), model.bias.requires_grad_()
        optimizer = mt.Optimizer([{"params": [model.weight]}, {"params": [model.bias], "rule": "adamw"}])
        ours = [model.weight, model.bias]
        run(optimizer, ours, 3)
        for way in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
            twin = way(optimizer)
            theirs = [p for g in twin.param_groups for p in g["params"]]
            mine = copy.deepcopy(ours), optimizer
            run(twin, theirs, 2, first=3)
            control = mt.Optimizer([{"params": [mine[0][0]]}, {"params": [mine[0][1]], "rule": "adamw"}])
            control.load_state_dict(optimizer.state_dict())
            run(control, mine[0], 2, first=3)
            self.assertTrue(all(p.equal(q) for p, q in zip(theirs, mine[0])))

    def test_state_of_torch_optim_muon(self):
        ours = parameters(torch.float32)
        theirs = [nn.Parameter(p.detach().clone()) for p in ours]
        shipped = torch.optim.Muon(theirs, lr=0.02)
        run(shipped, theirs, 5)
        mine = mt.Muon(ours)
        mine.load_state_dict(shipped.state_dict())
        self.assertEqual(mine.param_groups[0]["lr"], 0.02)
        saved = mine.state_dict()["state"]
        self.assertTrue(all(saved[i]["momentum_buffer"].equal(s["momentum_buffer"])
                            for i, s in shipped.state_dict()["state"].items()))
        back = torch.optim.Muon(theirs)
        back.load_state_dict(mine.state_dict())
        run(back, theirs, 1, first=5)


class AdamW(unittest.TestCase):
    shapes = SHAPES + [(7,), (), (3, 2, 2, 2)]

    def pair(self, dtype=torch.float32, **settings):
        ours, theirs = (parameters(dtype, self.shapes) for _ in range(2))
        return ours, theirs, mt.AdamW(ours, **settings), torch.optim.AdamW(theirs, **settings)

    def both(self, ours, theirs, mine, shipped, steps, first=0, without=None):
        for t in range(first, first + steps):
            give(ours, t), give(theirs, t)
            if without is not None:
                ours[without].grad = theirs[without].grad = None
            mine.step(), shipped.step()

    def test_trajectories(self):
        for dtype, legal in ((torch.float32, 3e-6), (torch.float64, 1e-12)):
            for amsgrad in (False, True):
                all_of = self.pair(dtype, lr=3e-3, betas=(0.8, 0.95), weight_decay=0.1, amsgrad=amsgrad)
                self.both(*all_of, 200)
                self.assertLess(distance(*all_of[:2]), legal)

    def test_it_looks_like_the_shipped_one(self):
        _, _, mine, shipped = self.pair()
        groups = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (mine, shipped)]
        self.assertEqual(*groups)
        self.assertEqual(mine.defaults, shipped.defaults)
        for arguments, words in (({"maximize": True}, "maximize is True"), ({"capturable": True}, "capturable"),
                                 ({"differentiable": True}, "differentiable"), ({"betas": (0.9, 1.0)}, "beta2 is 1"),
                                 ({"eps": 0.0}, "eps is 0"), ({"lr": -1.0}, "lr"), ({"weight_decay": -1.0}, "decay")):
            with self.assertRaisesRegex(ValueError, words):
                mt.AdamW(parameters(), **arguments)
        mt.AdamW(parameters(), foreach=True), mt.AdamW(parameters(), fused=True)
        mt.AdamW([("wte.weight", parameters(shapes=[(64, 16)])[0])])  # where an embedding belongs

    def test_state_of_the_shipped_one_in_mid_run(self):
        for dtype, legal in ((torch.float32, 3e-6), (torch.float64, 1e-12)):
            for amsgrad in (False, True):
                ours, theirs, _, shipped = self.pair(dtype, lr=0.01, amsgrad=amsgrad)
                for t in range(7):  # one parameter is left out of some steps
                    give(theirs, t)
                    if t % 2:
                        theirs[1].grad = None
                    shipped.step()
                for p, q in zip(ours, theirs):
                    p.data.copy_(q)
                mine = mt.AdamW(ours, amsgrad=amsgrad)
                mine.load_state_dict(shipped.state_dict())
                self.assertEqual(mine.param_groups[0]["lr"], 0.01)
                self.both(ours, theirs, mine, shipped, 20, first=7)
                self.assertLess(distance(ours, theirs), legal)
                saved, known = mine.state_dict()["state"], shipped.state_dict()["state"]
                self.assertEqual([s["step"] for s in saved.values()], [s["step"] for s in known.values()])
                for i, s in known.items():
                    for name, t in s.items():
                        self.assertEqual((saved[i][name].shape, saved[i][name].dtype), (t.shape, t.dtype))
                        self.assertLess((saved[i][name] - t).abs().max().item(), 1e-5)
                # And the other way round, twice: what the shipped one leaves in the state does not mislead.
                back = torch.optim.AdamW(theirs, amsgrad=amsgrad)
                back.load_state_dict(mine.state_dict())
                self.both(ours, theirs, mine, back, 5, first=27)
                again = [nn.Parameter(p.detach().clone()) for p in theirs]
                mine = mt.AdamW(again, amsgrad=amsgrad)
                mine.load_state_dict(back.state_dict())
                self.both(again, theirs, mine, back, 5, first=32)
                self.assertLess(distance(again, theirs), legal)

    def test_resumed_with_the_same_bits(self):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            State.go_on(self, lambda p: mt.AdamW(p, lr=0.01), dtype, self.shapes)

    def test_left_out_and_resumed(self):
        ours, theirs, mine, shipped = self.pair(lr=0.01)
        self.both(ours, theirs, mine, shipped, 3)
        self.both(ours, theirs, mine, shipped, 3, first=3, without=2)
        steps = [int(s["step"]) for s in mine.state_dict()["state"].values()]
        self.assertEqual(steps, [6, 6, 3, 6, 6, 6, 6])
        copy_of = mt.AdamW(ours)
        copy_of.load_state_dict(mine.state_dict())
        self.both(ours, theirs, copy_of, shipped, 5, first=6)
        self.assertLess(distance(ours, theirs), 3e-6)

    def test_a_first_gradient_after_a_state_dict(self):
        # PyTorch has no state of such a parameter, and its corrections begin with the first gradient.
        ours, theirs, mine, shipped = self.pair(torch.float64, lr=0.01)
        self.both(ours, theirs, mine, shipped, 3, without=1)
        saved = mine.state_dict()
        self.assertEqual([int(s["step"]) for s in saved["state"].values()], [3, 0, 3, 3, 3, 3, 3])
        for kind in (torch.optim.AdamW, mt.AdamW):
            params = [nn.Parameter(p.detach().clone()) for p in ours]
            other = kind(params)
            other.load_state_dict(copy.deepcopy(saved))
            plain = [nn.Parameter(p.detach().clone()) for p in theirs]
            control = torch.optim.AdamW(plain)
            control.load_state_dict(copy.deepcopy(shipped.state_dict()))
            self.both(params, plain, other, control, 4, first=3)
            self.assertLess(distance(params, plain), 1e-12)

    def test_steps_are_counted_where_16_bits_are_the_default(self):
        mine = mt.AdamW(parameters(shapes=[(3, 3)]), betas=(0.9, 0.99))
        run(mine, mine.param_groups[0]["params"], 259)
        default = torch.get_default_dtype()
        for dtype, counts in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
            torch.set_default_dtype(dtype)
            try:
                step = mine.state_dict()["state"][0]["step"]
            finally:
                torch.set_default_dtype(default)
            self.assertEqual((step.item(), step.dtype), (259, counts))

    def test_what_does_not_fit(self):
        ours = parameters()
        mine = mt.AdamW(ours)
        run(mine, ours, 2)
        before = str(mine.state_dict())
        sgd = torch.optim.SGD(ours, lr=0.1, momentum=0.9)
        muon, adam = torch.optim.Muon(ours), torch.optim.Adam(ours, weight_decay=0.1)
        for other in (sgd, muon, adam):
            other.step()
        broken = copy.deepcopy(mine.state_dict())
        broken["state"][0]["step"] = torch.tensor(float("nan"))
        for bad, words in ((sgd.state_dict(), "momentum_buffer|missing"), (muon.state_dict(), "momentum_buffer|missing"),
                           (adam.state_dict(), "decoupled_weight_decay is False"), (broken, '"step" in the state dict is nan')):
            with self.assertRaisesRegex(ValueError, words):
                mine.load_state_dict(bad)
            self.assertEqual(str(mine.state_dict()), before)
        for betas in ((0.9,), 0.9, (0.9, 0.99, 0.999)):
            with self.assertRaisesRegex(ValueError, "betas is .*; legal: two numbers"):
                mt.AdamW(ours, betas=betas)

    def test_schedulers_of_betas(self):
        ours, plain = parameters(), parameters()
        mine, by_hand = mt.AdamW(ours), mt.AdamW(plain)
        scheduler = torch.optim.lr_scheduler.CyclicLR(mine, base_lr=1e-3, max_lr=1e-2, step_size_up=3)
        seen = []
        for t in range(8):
            seen.append(mine.param_groups[0]["betas"][0])
            by_hand.param_groups[0].update(lr=mine.param_groups[0]["lr"], betas=mine.param_groups[0]["betas"])
            give(ours, t), give(plain, t)
            mine.step(), by_hand.step()
            scheduler.step()
        self.assertGreater(max(seen) - min(seen), 0.05)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))
        constant = parameters()
        other = mt.AdamW(constant)
        for t in range(8):
            other.param_groups[0]["lr"] = 1e-3 + 9e-3 * (t / 3 if t <= 3 else (6 - t) / 3 if t <= 6 else (t - 6) / 3)
            run(other, constant, 1, first=t)
        self.assertGreater(distance(ours, constant), 1e-4)  # betas count


class Protocol(unittest.TestCase):
    def test_closure(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours, lr=0.02)

        def closure():
            optimizer.zero_grad()
            loss = sum((p ** 2).sum() for p in ours)
            loss.backward()
            return loss

        first = optimizer.step(closure).item()
        for _ in range(20):
            last = optimizer.step(closure).item()
        self.assertLess(last, 0.9 * first)

    def test_within_a_compiled_function(self):
        ours, plain = parameters(), parameters()
        optimizer, control = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)

        @torch.compile(backend="eager")
        def step():
            optimizer.step()

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for t in range(3):
                give(ours, t), give(plain, t)
                step(), control.step()
        self.assertEqual([str(w.message) for w in said if "Dynamo" in str(w.message)], [])
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_steps_in_the_backward_pass(self):
        ours, plain = parameters(), parameters()
        own = {p: mt.Optimizer([p], lr=0.02) for p in ours}
        control = mt.Optimizer(plain, lr=0.02)

        def hook(p):
            own[p].step()
            own[p].zero_grad()

        for p in ours:
            p.register_post_accumulate_grad_hook(hook)
        for _ in range(3):
            control.zero_grad()
            for all_of in (ours, plain):
                sum((p ** 3).sum() for p in all_of).backward()
            control.step()
        self.assertTrue(all(p.equal(q) and p.grad is None for p, q in zip(ours, plain)))

    def test_lazy_parameters(self):
        # They get their shape in the first pass, as with PyTorch's optimizers.
        torch.manual_seed(1)
        lazy = nn.LazyLinear(5)
        optimizer = mt.Optimizer(lazy.parameters(), rule="adamw")
        lazy(torch.ones(3, 4)).sum().backward()
        before = lazy.weight.detach().clone()
        optimizer.step()
        self.assertFalse(lazy.weight.equal(before))
        self.assertEqual(optimizer.state_dict()["state"][0]["first_moment"].shape, (5, 4))

    def test_zero_grad(self):
        ours = parameters()
        optimizer = mt.Optimizer(ours)
        give(ours, 0)
        optimizer.zero_grad(set_to_none=False)
        self.assertEqual(sum(p.grad.abs().sum().item() for p in ours), 0)
        optimizer.zero_grad()
        self.assertTrue(all(p.grad is None for p in ours))

    def test_hooks(self):
        ours, seen = parameters(), []
        optimizer = mt.Optimizer(ours)
        optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        optimizer.register_state_dict_pre_hook(lambda _: seen.append("saving"))
        optimizer.register_load_state_dict_post_hook(lambda o: seen.append(("loaded", o._native.steps())))
        optimizer.register_load_state_dict_pre_hook(lambda _, d: {**d, "state": {}} if d.get("forget") else None)
        run(optimizer, ours, 1)
        optimizer.load_state_dict(optimizer.state_dict())
        self.assertEqual(seen, ["before", "after", "saving", ("loaded", 1)])
        optimizer.load_state_dict({**optimizer.state_dict(), "forget": True})
        self.assertEqual(optimizer.state_dict()["state"], {})

    def test_grad_scaler(self):
        ours, plain = parameters(torch.float32), parameters(torch.float32)
        optimizer, control = mt.Optimizer(ours, lr=0.02), mt.Optimizer(plain, lr=0.02)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for t in range(4):
            give(ours, t), give(plain, t)
            for p in ours:
                p.grad.mul_(scaler.get_scale())
            scaler.scale(torch.zeros(()))
            if t == 2:
                ours[0].grad[0, 0] = math.inf
                before = [p.detach().clone() for p in ours]
            scaler.step(optimizer)
            scaler.update()
            if t == 2:
                self.assertTrue(all(p.equal(q) for p, q in zip(ours, before)))
            else:
                control.step()
        self.assertEqual(scaler.get_scale(), 512.0)
        self.assertTrue(all(p.equal(q) for p, q in zip(ours, plain)))

    def test_a_model_learns(self):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(),
                              nn.Linear(16, 4))
        x, y = torch.randn(64, 1, 6, 6), torch.arange(64) % 4
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        optimizer = mt.Optimizer([{"params": matrices, "rule": "muon", "lr": 0.02},
                                  {"params": vectors, "rule": "adamw", "lr": 1e-2}])
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], 0.2 * losses[0])

    def test_muon_refuses_as_pytorch_does(self):
        for arguments, words in (({"lr": -1.0}, "lr"), ({"momentum": 1.5}, "momentum"), ({"weight_decay": -1.0}, "decay"),
                                 ({"adjust_lr_fn": "other"}, "not supported"), ({"ns_steps": 100}, "ns_steps"),
                                 ({"ns_coefficients": (1.0, 2.0, 3.0)}, "ns_coefficients"),
                                 ({"ns_coefficients": 1.0}, "ns_coefficients is 1.0")):
            with self.assertRaisesRegex(ValueError, words):
                mt.Muon(parameters(), **arguments)
        with self.assertRaisesRegex(ValueError, "2D"):
            mt.Muon(parameters(shapes=[(4,)]))
        theirs = torch.optim.Muon(parameters()).param_groups[0]
        ours = mt.Muon(parameters()).param_groups[0]
        self.assertEqual({k: v for k, v in ours.items() if k != "params"}, {k: v for k, v in theirs.items() if k != "params"})


class Orthogonalize(unittest.TestCase):
    def test_singular_values(self):
        for dtype, shape in ((torch.float32, (12, 20)), (torch.float64, (20, 12)), (torch.float32, (3, 2, 10, 8))):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
            kept = x.clone()
            y = mt.orthogonalize(x, "deepseek")
            u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
            self.assertLess((y - u @ v).abs().max().item(), 0.02)
            self.assertEqual((y.dtype, y.shape), (x.dtype, x.shape))
            self.assertTrue(x.equal(kept))
            self.assertLess((mt.orthogonalize(x.transpose(-1, -2), "deepseek").transpose(-1, -2) - y).abs().max().item(), 1e-5)
            self.assertGreater((mt.orthogonalize(x, steps=1) - mt.orthogonalize(x)).abs().max().item(), 0.05)
        self.assertEqual(mt.orthogonalize(torch.randn(4, 4).bfloat16()).dtype, torch.bfloat16)

    def test_refused(self):
        for x, words in ((torch.zeros(4), "two dimensions"), (torch.zeros(4, 4, dtype=torch.int32), "Int")):
            with self.assertRaisesRegex(ValueError, words):
                mt.orthogonalize(x)
        with self.assertRaisesRegex(ValueError, "keller"):
            mt.orthogonalize(torch.zeros(4, 4), "kellr")
        for steps in (0, -3, 100):
            with self.assertRaisesRegex(ValueError, f"ns_steps is {steps}; legal: .1, 99."):
                mt.orthogonalize(torch.zeros(4, 4), steps=steps)


if torch.cuda.is_available() and mt.rules("cuda"):

    class OnGpu(unittest.TestCase):
        SHAPES = [(48, 64), (64, 48), (64, 64)]

        def pair(self, dtype=torch.float32, shapes=None):
            on_cpu = parameters(dtype, shapes or self.SHAPES)
            return on_cpu, [nn.Parameter(p.detach().cuda()) for p in on_cpu]

        def run_both(self, a, b, cpu, gpu, steps, first=0):
            for t in range(first, first + steps):
                give(cpu, t)
                for p, q in zip(cpu, gpu):
                    q.grad = p.grad.cuda()
                a.step(), b.step()

        def test_rules_follow_the_cpu(self):
            for rule in mt.rules("cuda"):
                with self.subTest(rule=rule):
                    cpu, gpu = self.pair()
                    start = [p.detach().clone() for p in cpu]
                    own = {"rank_hold": 3, "rank_total": 20} if "rank_total" in mt.settings(rule) else {}
                    a, b = (mt.Optimizer(p, rule=rule, lr=0.01, **own) for p in (cpu, gpu))
                    self.run_both(a, b, cpu, gpu, 10)
                    apart = sum((p - q.cpu()).norm() for p, q in zip(cpu, gpu)).item()
                    moved = sum((p - s).norm() for p, s in zip(cpu, start)).item()
                    self.assertLess(apart, (1e-4 if rule in ("adamw", "lion") else 0.05) * moved)

        def test_beside_the_shipped_optimizers(self):
            for ours, theirs, legal in ((mt.Muon, torch.optim.Muon, 0.03),
                                        (lambda p, **k: mt.Optimizer(p, rule="adamw", **k), torch.optim.AdamW, 1e-5)):
                _, mine = self.pair()
                _, shipped = self.pair()
                a, b = ours(mine, lr=0.01, weight_decay=0.1), theirs(shipped, lr=0.01, weight_decay=0.1)
                run_on = lambda o, params: [self.step_on(o, params, t) for t in range(50)]
                run_on(a, mine), run_on(b, shipped)
                self.assertLess(distance(mine, shipped), legal)

        def step_on(self, optimizer, params, t):
            for p, g in zip(params, gradients(t, torch.float32, [tuple(p.shape) for p in params])):
                p.grad = g.cuda()
            optimizer.step()

        def test_other_streams(self):
            _, mine = self.pair()
            _, plain = self.pair()
            a, b = mt.Optimizer(mine, lr=0.02), mt.Optimizer(plain, lr=0.02)
            for t in range(12):
                with torch.cuda.stream(torch.cuda.Stream() if t % 3 else torch.cuda.current_stream()) as _:
                    torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
                    torch.cuda._sleep(1_000_000)  # the gradients come late
                    self.step_on(a, mine, t)
                    for p in mine:
                        p.grad = None  # and their memory is used again at once
                    torch.full((64, 64), float("nan"), device="cuda")
                    stream = torch.cuda.current_stream()
                torch.cuda.default_stream().wait_stream(stream)
                self.step_on(b, plain, t)
            self.assertTrue(all(p.equal(q) for p, q in zip(mine, plain)))

        def test_sixteen_bits_and_state(self):
            _, mine = self.pair(torch.bfloat16)
            optimizer = mt.Optimizer(mine, lr=0.02, master_weights=True)
            step = lambda o, params, t: [setattr(p, "grad", g.cuda()) for p, g in
                                         zip(params, gradients(t, torch.bfloat16, self.SHAPES))] and o.step()
            for t in range(5):
                step(optimizer, mine, t)
            again = [nn.Parameter(p.detach().clone()) for p in mine]
            other = mt.Optimizer(again, lr=0.02, master_weights=True)
            other.load_state_dict(optimizer.state_dict())
            for t in range(5, 10):
                step(optimizer, mine, t), step(other, again, t)
            self.assertTrue(all(p.equal(q) for p, q in zip(mine, again)))
            mine[1].grad = None
            before = mine[1].detach().clone()
            optimizer.step()
            self.assertTrue(mine[1].equal(before))

        def test_moved_after_it_was_made(self):
            model = nn.Linear(8, 6)
            optimizer = mt.Optimizer([{"params": [model.weight]}, {"params": [model.bias], "rule": "adamw"}])
            model.cuda()
            model(torch.randn(4, 8, device="cuda")).sum().backward()
            before = model.weight.detach().clone()
            optimizer.step()
            self.assertFalse(model.weight.equal(before))

        def test_orthogonalize(self):
            x = torch.randn(3, 64, 48, device="cuda")
            y = mt.orthogonalize(x, "deepseek")
            u, _, v = torch.linalg.svd(x, full_matrices=False)
            self.assertLess((y - u @ v).abs().max().item(), 0.03)


class Import(unittest.TestCase):
    def test_without_the_extension(self):
        package = Path(mt.__file__).parent.parent
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(package, Path(folder) / "matopt", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            environment = {k: v for k, v in os.environ.items() if k != "MATOPT_JIT"} | {"PYTHONPATH": folder}
            said = subprocess.run([sys.executable, "-c", "import matopt.torch"], cwd=folder, env=environment, text=True,
                                  capture_output=True, check=False)
        self.assertIn("ImportError: matopt.torch needs its compiled extension", said.stderr)
        self.assertIn("pip install --no-build-isolation ./python", said.stderr)

    def test_build_without_pytorch(self):
        # As pip does by default, in an environment of its own.
        setup = Path(__file__).parent.parent / "setup.py"
        said = subprocess.run([sys.executable, "-c", "import runpy, sys; sys.modules['torch'] = None; "
                               f"runpy.run_path({str(setup)!r})"], text=True, capture_output=True, check=False)
        self.assertEqual(said.returncode, 1)
        self.assertTrue(said.stderr.startswith("matopt: it is built against the PyTorch that will use it"), said.stderr)
        self.assertIn("pip install --no-build-isolation ./python", said.stderr)


if __name__ == "__main__":
    unittest.main()
