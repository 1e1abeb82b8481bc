"""Imports many modules of the standard library, and packages that it does not need."""

import asyncio
import collections
import concurrent.futures
import csv
import decimal
import email
import fractions
import http.client
import inspect
import multiprocessing
import socket
import sqlite3
import subprocess
import unittest
import urllib.request
import xml.dom

import numpy as np

EXPECTED = {"PASSED"}
USED = [asyncio, collections, concurrent, csv, decimal, email, fractions, http, inspect, multiprocessing, socket]
USED += [sqlite3, subprocess, unittest, urllib, xml]


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
