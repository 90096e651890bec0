"""PyTorch networks: conversion and verification."""
